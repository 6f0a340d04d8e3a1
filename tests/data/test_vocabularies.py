"""Two vocabularies side by side, against what transformers decodes of every id alone."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from adaspec_jax import data
from adaspec_jax.data.vocabularies import LONGEST, _of_byte_level
from adaspec_jax.errors import UserError
from tests.data import forms
from tests.running import slow

HALF = "\ufffd"


def both(target, draft):
    rows = {"target_rows": data.rows_needed(target) + 3, "draft_rows": data.rows_needed(draft) + 2}
    return data.side_by_side(target, draft, **rows)


def decoded(tokenizer):
    """{what transformers shows of the id alone, after another token: ids}; ids of half characters are left out."""
    [anchor] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    show = lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)  # noqa: E731
    start, found = show([anchor]), {}
    for i in range(data.rows_needed(tokenizer)):
        whole = show([anchor, i])
        if i in tokenizer.all_special_ids or HALF in whole:
            continue
        assert whole.startswith(start)
        found.setdefault(whole[len(start) :], []).append(i)
    return found


def check_against_transformers(target, draft):
    found, ours, theirs = both(target, draft), decoded(target), decoded(draft)
    shared = ours.keys() & theirs.keys()
    whole = {i for ids in ours.values() for i in ids}
    paired = {v: int(w) for v, w in enumerate(found.draft_of_V) if w >= 0}
    texts = {i: text for side in (theirs,) for text, ids in side.items() for i in ids}
    ends = {target.eos_token_id} if None not in (target.eos_token_id, draft.eos_token_id) else set()
    assert sum(v in whole for v in paired) == len(shared)
    for text in shared:
        [v] = [v for v in ours[text] if v in paired]
        assert texts[paired[v]] == text
    for v, w in paired.items():
        if v not in whole and v not in ends:  # half a character: no text of its own, and one byte or more of it
            assert w not in texts
    assert len(set(paired.values())) == len(paired) == found.shared
    for end in ends:
        assert paired[end] == draft.eos_token_id and found.meaning.tokens_VK[draft.eos_token_id, 0] == end
    return found


REAL = {"gpt_neox_20b": ("tokenizers", "gpt_neox_20b"), "codegen": ("tokenizers", "codegen")}


@pytest.fixture
def real(shared_data, shared_weights):
    def load(name):
        folder = shared_data(*REAL[name]) if name in REAL else shared_weights(name)
        return data.load_tokenizer(folder)

    return load


@pytest.mark.parametrize(
    "target, draft",
    [("stories260K-hf", "gpt_neox_20b"), slow("gpt_neox_20b", "codegen"), slow("codegen", "stories260K-hf")],
)
def test_real_vocabularies_share_what_transformers_shows_alike(real, target, draft):
    check_against_transformers(real(target), real(draft))


@pytest.fixture(scope="module")
def form(tmp_path_factory):
    """`form("Llama 2")`: the tokenizer of a form, loaded once."""
    root, known = tmp_path_factory.mktemp("forms"), {}

    def load(name):
        if name not in known:
            known[name] = data.load_tokenizer(forms.write(name, root / name.replace(" ", "_")))
        return known[name]

    return load


@pytest.mark.parametrize("target, draft", [("GPT-2", "Llama 2"), ("CodeQwen", "Qwen2"), slow("DeepSeek", "SmolLM2")])
def test_forms_of_vocabularies_share_what_transformers_shows_alike(form, target, draft):
    found = check_against_transformers(form(target), form(draft))
    assert 200 < found.shared < min(data.rows_needed(form(target)), data.rows_needed(form(draft)))


def test_a_vocabulary_shares_all_of_itself_but_special_tokens(form):
    own = form("Qwen2")
    found, special = both(own, own), set(own.all_special_ids) - {own.eos_token_id}
    assert found.draft_of_V.tolist() == [v if v not in special else -1 for v in range(found.tokens)] + [-1] * 3
    for table in (found.spelling, found.meaning):
        kept = [v for v in range(found.tokens) if v not in special]
        assert table.tokens_VK[kept, 0].tolist() == kept and set(table.lengths_V[kept]) == {1}
    assert found.shared == found.tokens - len(special) and found.ratio == 1


def spelled(found, ids):
    return [int(w) for v in ids for w in found.spelling.tokens_VK[v] if w >= 0]


def pieces(tokenizer, text):
    """(the ids of a text, where each token ends)."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]


@pytest.mark.parametrize("target, draft", [("GPT-2", "Qwen2"), ("SmolLM2", "Llama 3")])
def test_texts_are_spelled_as_the_draft_writes_them_where_it_cuts_them_alike(form, target, draft):
    target, draft = form(target), form(draft)
    found, agree = both(target, draft), 0
    for text in forms.texts()[:40] + forms.texts()[-15:]:
        (ids, ends), (theirs, their_ends) = pieces(target, text), pieces(draft, text)
        ours = spelled(found, ids)
        assert draft.decode(ours, clean_up_tokenization_spaces=False) == text
        if set(ends) <= set(their_ends):  # every token of the target's is whole tokens of the draft's
            agree += 1
            assert ours == theirs
    assert agree > 2


def test_ends_and_beginnings_are_the_others(form):
    ends, begins, also = form("GPT-2"), form("Llama 2"), form("Llama 3")
    found = both(ends, begins)
    assert spelled(found, [-1]) == [1]  # the last row: <s>
    assert found.draft_of_V[ends.eos_token_id] == 2 and spelled(found, [ends.eos_token_id]) == [2]
    found = both(begins, ends)
    assert found.spelling.lengths_V[-1] == 0 and spelled(found, [1]) == [ends.eos_token_id]
    found = both(begins, also)
    assert found.spelling.lengths_V[1] == 0 and spelled(found, [-1]) == data.opening(also)
    assert found.draft_of_V[1] == -1 and also.convert_ids_to_tokens(int(found.draft_of_V[2])) == "<|eot_id|>"


def test_special_tokens_are_read_by_their_names_and_never_guessed(form):
    target, draft = form("Qwen2"), form("SmolLM2")
    found = both(target, draft)
    for name in ("<|im_start|>", "<|endoftext|>"):
        ours, theirs = (tokenizer.convert_tokens_to_ids(name) for tokenizer in (target, draft))
        assert found.draft_of_V[ours] == -1 and spelled(found, [ours]) == [theirs]
        assert found.meaning.tokens_VK[theirs].tolist() == [-1] * found.meaning.tokens_VK.shape[1]
    other = form("Llama 2")
    ours = target.convert_tokens_to_ids("<|im_start|>")
    said = other.decode(spelled(both(target, other), [ours])).strip()
    assert len(said) > 4 and "<|im_start|>".endswith(said)  # the last tokens of a long spelling


def test_of_two_tokens_with_one_string_the_one_that_is_written_is_guessed(form):
    target, draft = form("Llama 2"), form("GPT-2")
    found, code, letter = both(target, draft), *target.convert_tokens_to_ids(["<0x61>", "a"])
    assert code != letter and found.draft_of_V[code] == -1
    assert found.draft_of_V[letter] == draft.convert_tokens_to_ids("a")
    assert spelled(found, [code]) == spelled(found, [letter])


def test_of_long_spellings_the_end_is_read_and_the_beginning_guessed():
    text = "incomprehensibilities"
    words, letters = data.train_bpe([text] * 9, vocab_size=400), data.train_bpe([], vocab_size=257)
    [word] = words(text)["input_ids"]
    found = both(words, letters)
    assert spelled(found, [word]) == letters(text[-LONGEST:])["input_ids"]
    assert found.spelling.lengths_V[word] == LONGEST
    found = both(letters, words)
    assert found.meaning.tokens_VK[word].tolist() == letters(text[:LONGEST])["input_ids"]
    assert found.meaning.lengths_V[word] == len(text)


def test_bytes_are_those_of_the_byte_level_alphabet():
    text = "".join(map(chr, (*range(0x800), 0x4E00, 0x1F600)))
    made = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert b"".join(_of_byte_level(token) for token, _ in made) == text.encode()


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), None])
def test_tokens_whose_strings_cannot_be_told_are_refused(decoder):
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    made.decoder = decoder
    with pytest.raises(UserError, match="which strings the tokens of the draft stand for is not known here"):
        both(data.train_bpe([], vocab_size=257), PreTrainedTokenizerFast(tokenizer_object=made))
