"""What a token shows says its class, whatever stands around it."""

import numpy as np
import pytest

from adaspec_jax.data import TOKEN_CLASSES, token_class, token_classes, train_bpe

EXAMPLES = {
    "digits": ["7", " 42", "3.14", "1,000", "12:30", "5."],
    "operators": ["+", " =", "<<", "$", "%", "**", "×"],
    "names": ["Anna", " The", "O’Neil", "I"],
    "words": [" apples", "n't", "'s", "well-known", "ß", "и"],
    "code": ["{", "my_name", "camelCase", "x1", "==", "->", "a.b", "];", "`"],
    "punctuation": [".", " ,", "!", "?\n", "(", ")", "“", "..."],
    "whitespace": [" ", "\n\n", "\t"],
    "other": ["", "\ufffd", "\x00", "a!b c"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in EXAMPLES.items() for text in texts])
def test_a_text_is_of_its_class(name, text):
    assert token_class(text) == name


def test_every_token_of_a_tokenizer_has_the_class_of_its_text_and_rows_beyond_have_none():
    tokenizer = train_bpe(["Anna has 12 apples + 3 pears = 15."] * 4, vocab_size=300)
    found = token_classes(tokenizer, 310)
    assert found.shape == (310,) and found.dtype == np.int8
    for token in range(len(tokenizer)):
        name = TOKEN_CLASSES[found[token]]
        special = token in tokenizer.all_special_ids
        assert name == ("special" if special else token_class(tokenizer.decode([token])))
    assert {TOKEN_CLASSES[c] for c in found[len(tokenizer) :]} == {"other"}
