"""Tokenizers are lossless and repeatable, survive a disk, and misfits are said in one line."""

import copy
import json
import shutil
import subprocess
import sys

import pytest

from adaspec_jax.data import (
    Example,
    check_fits,
    check_same_tokenizer,
    encode,
    ends_of_text,
    fingerprint,
    load_examples,
    load_tokenizer,
    name_unknown,
    opening,
    tokenizer_files,
    train_bpe,
)
from adaspec_jax.errors import UserError

STRANGE = " tabs\t\r\n  caf\u00e9 \u6f22\u5b57 \U0001f600 \x00 \u00bd 12345 don't <<48/2=24>>24 a , b ."


@pytest.fixture(scope="module")
def texts():
    return [part for example in load_examples("word_problems", num=300) for part in (example.prompt, example.answer)]


@pytest.fixture(scope="module")
def small(texts):
    return train_bpe(texts, vocab_size=512)


@pytest.fixture
def neox(shared_data):
    return load_tokenizer(shared_data("tokenizers", "gpt_neox_20b"))


@pytest.fixture
def codegen(shared_data):
    return load_tokenizer(shared_data("tokenizers", "codegen"))


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_trained_tokenizer_gives_back_any_text(small, texts):
    assert len(small) == 512
    for text in [*texts[:200], STRANGE]:
        assert small.decode(ids(small, text)) == text


def test_a_trained_tokenizer_has_a_name_for_unknown_text_which_changes_nothing(small, texts):
    """CTranslate2 dies of a tokenizer without one; of bytes, none is unknown."""
    assert small.unk_token == small.eos_token == "<|endoftext|>" and small.unk_token_id == 0
    before = copy.deepcopy(small)
    before.unk_token = None
    assert before.backend_tokenizer.to_str() == small.backend_tokenizer.to_str()
    assert fingerprint(before) == fingerprint(small)
    for text in [*texts[:50], STRANGE, "<|endoftext|>", "<unk>"]:
        assert ids(before, text) == ids(small, text) and before.decode(ids(small, text)) == small.decode(
            ids(small, text)
        )
    name_unknown(before)  # as an export does with those of earlier runs
    assert before.unk_token == "<|endoftext|>" and fingerprint(before) == fingerprint(small)


def test_digits_stand_alone(small):
    assert [token for token in small.tokenize("12+345 = 357") if token.isdigit()] == list("12345357")


def test_end_of_text_is_id_0_and_pads(small):
    assert (small.bos_token_id, small.eos_token_id, small.pad_token_id) == (0, 0, 0)
    assert ids(small, "a<|endoftext|>b")[1] == 0
    assert small.encode("ab") == ids(small, "ab")  # it adds nothing of its own


def test_training_again_gives_the_same_tokenizer_in_another_process(texts, small):
    code = (
        "import sys, json; from adaspec_jax.data import train_bpe, fingerprint;"
        "print(fingerprint(train_bpe(json.load(sys.stdin), vocab_size=512)))"
    )
    other = subprocess.run([sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True)
    assert other.stdout.strip() == fingerprint(small) == fingerprint(train_bpe(texts, vocab_size=512))
    assert other.stderr == ""  # no notice that PyTorch is missing


def test_a_text_that_runs_out_gives_fewer_entries():
    assert 257 < len(train_bpe(["hello hello", "hello"], vocab_size=1000)) < 300
    with pytest.raises(UserError, match="at least 257, not 256"):
        train_bpe(["hello"], vocab_size=256)


def test_a_saved_tokenizer_comes_back(small, tmp_path, texts):
    small.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert fingerprint(again) == fingerprint(small)
    check_same_tokenizer(small, again)
    assert ends_of_text(again) == (0,)
    assert ids(again, STRANGE) == ids(small, STRANGE) and again.decode(ids(again, STRANGE)) == STRANGE


def test_real_tokenizers_equal_the_tokenizers_library(shared_data, neox, codegen):
    from tokenizers import Tokenizer

    for tokenizer, name in ((neox, "gpt_neox_20b"), (codegen, "codegen")):
        raw = Tokenizer.from_file(str(shared_data("tokenizers", name, "tokenizer.json")))
        for text in (STRANGE, "def f(x):\n        return x\n", "Natalia sold 48/2 = <<48/2=24>>24 clips"):
            assert ids(tokenizer, text) == raw.encode(text, add_special_tokens=False).ids
    assert ends_of_text(neox).ids == (0,) and ends_of_text(codegen).ids == (50256,)


def test_a_directory_with_only_tokenizer_json_is_enough(shared_data, tmp_path, neox):
    shutil.copy(shared_data("tokenizers", "gpt_neox_20b", "tokenizer.json"), tmp_path)
    bare = load_tokenizer(tmp_path)
    assert fingerprint(bare) == fingerprint(neox)
    check_same_tokenizer(bare, neox)
    assert ends_of_text(bare, (0,)) == (0,)
    assert ends_of_text(bare, (7, 8)) == (7, 8) and ends_of_text(bare, (7, 8)).closing == 7
    never = ends_of_text(bare, (), otherwise=(3,))
    assert never == (-1,) and never.ids == () and never.closing == 3
    for nothing in (None, ()):
        with pytest.raises(UserError, match="neither the tokenizer nor the model"):
            ends_of_text(bare, nothing)


def test_an_absent_tokenizer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_files, "hub_reachable", lambda: False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "maker/base"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    for name, complaint in {
        str(tmp_path / "nowhere"): "there is no tokenizer at",
        str(tmp_path / "broken" / "tokenizer.json"): "there is no tokenizer at",
        "pythia": "there is no tokenizer at pythia",
        str(tmp_path / "empty"): "holds no tokenizer",
        str(tmp_path / "adapter"): "holds an adapter of maker/base",
        str(tmp_path / "broken"): "tokenizer.json is nothing that the tokenizers library can read",
        "nobody/nothing": "the hub cannot be reached",
    }.items():
        with pytest.raises(UserError, match=complaint) as error:
            load_tokenizer(name)
        assert "\n" not in str(error.value)


def test_two_tokenizers_that_differ_are_told_apart_at_the_first_token(neox, codegen, small, texts):
    with pytest.raises(
        UserError, match=r"target and draft have different tokenizers: token 0 is .*endoftext.* and '!'"
    ):
        check_same_tokenizer(neox, codegen, ("target", "draft"))
    larger = train_bpe(texts, vocab_size=520)
    with pytest.raises(UserError, match=r"token 512 is absent in one and '.+' in the other"):
        check_same_tokenizer(small, larger)
    assert fingerprint(small) != fingerprint(larger)
    check_same_tokenizer(neox, neox)


def test_equal_vocabularies_with_other_merges_or_splitting_are_told_apart(small, tmp_path):
    small.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    saved["model"]["merges"].reverse()
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="merge 0 is"):
        check_same_tokenizer(small, load_tokenizer(tmp_path))
    saved["model"]["merges"].reverse()
    saved["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="becomes"):
        check_same_tokenizer(small, load_tokenizer(tmp_path))


def test_a_tokenizer_too_large_for_a_model_is_refused(neox):
    check_fits(neox, 50277)
    check_fits(neox, 50304, "Pythia")
    with pytest.raises(UserError, match=r"ids up to 50276 .*, but Pythia has a vocabulary of 50276"):
        check_fits(neox, 50276, "Pythia")


def test_a_text_opens_as_its_tokenizer_opens_it(shared_data, shared_weights):
    llama = load_tokenizer(shared_weights("stories260K-hf"))
    neox = load_tokenizer(shared_data("tokenizers", "gpt_neox_20b"))
    assert opening(llama) == [llama.bos_token_id] == llama("Once upon")["input_ids"][:1]
    assert opening(neox) == []
    ((row,), _) = encode([Example("Once", " upon")], llama, max_length=32, eos_id=llama.eos_token_id)
    assert row.prompt.tolist() == llama("Once")["input_ids"]
    assert llama.bos_token_id not in row.tokens[row.prompt_length :]
