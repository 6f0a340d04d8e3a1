"""Tokens become text whole, and text tokens where two pieces meet; the `tokenizers` library says what is right."""

import itertools

import pytest

from adaspec_jax import data
from adaspec_jax.data import Example, continuation, encode, load_tokenizer, opening, pieces, prompt_ids
from adaspec_jax.data.texts import answer_ids, text_of
from tests.data import forms

LINES = [
    "Once upon a time, there was 12 caf\u00e9 \u6f22\u5b57 \U0001f600!",
    "a\n\n  b\t c ",
    "\u00e9\u00e9 \U0001f469\u200d\U0001f680 x",
]
KINDS = ["GPT-2", "Llama 2", "Llama 3", "Qwen2", "CodeQwen", "DeepSeek"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(forms.write(request.param, tmp_path_factory.mktemp("form")))


@pytest.mark.parametrize("line", LINES)
def test_what_each_token_adds_is_the_text_together(tokenizer, line):
    ids = tokenizer(line)["input_ids"] * 3  # longer than any window
    shown = list(pieces(ids, tokenizer))
    whole = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    assert len(shown) == len(ids) and "".join(shown) == whole
    assert not any("\ufffd" in piece for piece in shown)


LONG = (
    "\u6f22\u5b57\u304b\u306a\u6df7\u3058\u308a\u6587\u306e\u9577\u3044\u4f8b\u3002" * 2 + " and \U0001f600\U0001f680!"
)


@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_text_that_grows_by_several_tokens_is_the_continuation(tokenizer, count):
    ids = tokenizer(LONG + LINES[0])["input_ids"]
    for start in (1, len(tokenizer(LONG)["input_ids"])):
        growing = data.Growing(ids[:start], tokenizer, special=False)
        parts = [growing.add(ids[at : at + count]) for at in range(start, len(ids), count)]
        assert growing.rest() == "" and not any("\ufffd" in part for part in parts)
        expected = tokenizer.backend_tokenizer.decode(ids)
        assert expected.endswith("".join(parts)) and "".join(parts).endswith(LINES[0])
        if start > 1:
            assert "".join(parts) == continuation(ids[:start], ids[start:], tokenizer, special=False)


def test_what_grows_is_decoded_from_a_few_tokens_earlier(tokenizer):
    """However long the text has become; and half a character is shown when nothing follows."""
    ids, asked = tokenizer(LONG)["input_ids"] * 8, []

    class Counting:
        def decode(self, ids, **how):
            asked.append(len(ids))
            return tokenizer.decode(ids, **how)

    growing = data.Growing(ids[:200], Counting())
    for token in ids[200:]:
        growing.add([token])
    assert asked[0] < 30 and max(asked) < 40
    if half := [token for token in ids if text_of([token], tokenizer) == "\ufffd"][:1]:
        assert growing.add(half) == "" and growing.rest().endswith("\ufffd") and growing.rest() == ""


@pytest.mark.parametrize("line", LINES)
def test_a_continuation_is_what_the_whole_text_has_more(tokenizer, line):
    ids = tokenizer(line)["input_ids"]
    whole = tokenizer.backend_tokenizer.decode(ids)
    for at in range(1, len(ids)):
        before = text_of(ids[:at], tokenizer, special=False)
        added = continuation(ids[:at], ids[at:], tokenizer, special=False)
        assert (before + added == whole) or (before.endswith("\ufffd") and whole.endswith(added))


PAIRS = list(
    itertools.product(["Tim said:\n", "2 + 2 =", "Q: a\n\nA: ", "x"], ["Yes.", " 4", "\n\n  if x:", "72 apples"])
)


@pytest.mark.parametrize("prompt, answer", PAIRS)
def test_prompt_and_answer_are_the_joint_text(tokenizer, prompt, answer):
    ((prompt_alone,), (rest,)) = answer_ids([prompt], [answer], tokenizer)
    joint = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    assert prompt_alone == tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if joint[: len(prompt_alone)] == prompt_alone:
        assert [*prompt_alone, *rest] == joint
    assert tokenizer.backend_tokenizer.decode([*prompt_alone, *rest]) == prompt + answer


def test_marks_that_stand_in_the_text_are_not_put_there_twice(tmp_path):
    tokenizer = load_tokenizer(forms.write("Llama 3", tmp_path))
    begin, end, other = (
        tokenizer.convert_tokens_to_ids(f"<|{x}|>") for x in ("begin_of_text", "eot_id", "end_of_text")
    )
    assert opening(tokenizer) == [begin]
    rows = [
        Example("Hi", "ok"),
        Example("<|begin_of_text|>Hi", "ok<|eot_id|>"),
        Example("Hi", "ok<|end_of_text|>\n"),
        Example("Hi", "ok<|eot_id|>and more"),
    ]
    encoded, counts = encode(rows, tokenizer, max_length=64, eos_id=end, ends=(end, other))
    tokens = [row.tokens.tolist() for row in encoded]
    assert tokens[0] == tokens[1] and tokens[0][0] == begin and tokens[0][-1] == end
    assert tokens[2] == [*tokens[0][:-1], other]  # what follows an end are blanks, and no answer
    assert [row.count(end) for row in tokens] == [1, 1, 0, 2] and all(row.count(begin) == 1 for row in tokens)
    assert counts["begun_already"] == 1 and counts["ended_already"] == 2
    assert prompt_ids("<|begin_of_text|>Hi", tokenizer) == prompt_ids("Hi", tokenizer)
    assert "begun_already" not in encode(rows[:1], tokenizer, max_length=64, eos_id=end)[1]


def test_clean_up_of_spaces_is_not_done_to_text(tmp_path):
    tokenizer = load_tokenizer(forms.write("Llama 3", tmp_path))  # whose config asks for it
    assert text_of(tokenizer("a , b .")["input_ids"], tokenizer, special=False) == "a , b ."


def test_a_real_sentencepiece_model_keeps_its_spaces(shared_weights):
    tokenizer = data.load_tokenizer(shared_weights("stories260K-hf"))
    ids = tokenizer("Once upon a time")["input_ids"]
    added = continuation(ids[:-2], ids[-2:], tokenizer)
    assert added.startswith(" ") and text_of(ids[:-2], tokenizer, special=False) + added == "Once upon a time"
    row = encode([Example("Tim said:\n", "Yes.")], tokenizer, max_length=64, eos_id=2)[0][0].tokens.tolist()
    assert row == [*tokenizer("Tim said:\nYes.")["input_ids"], 2]
