"""The doctor names what other readers take otherwise, and where text ends."""

import json
import shutil

import pytest

from tests import tiny_pair
from tests.running import command_line


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(tmp_path / name, tiny_pair.LLAMA | {"vocab_size": 288}, seed=seed)

    def run():
        """What it prints, and what it says of the target."""
        arguments = ["--target", tmp_path / "target", "--draft", tmp_path / "draft", "--json", tmp_path / "v.json"]
        status, out, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
        assert status == 0, errors
        return out, json.loads((tmp_path / "v.json").read_text())["target"]

    return run


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_nothing_is_said_of_what_all_read_alike(doctor):
    out, target = doctor()
    assert target["notes"] == [] and target["ends"] == [0] and "ends of text: 0\n" in out


SETTINGS, ROPE = "tokenizer_config.json", {"rope_type": "default", "rope_theta": 5e5}


@pytest.mark.parametrize(
    "file, changes, said",
    [
        (SETTINGS, {"extra_special_tokens": ["<a>"]}, "dies of extra_special_tokens as a list"),
        (SETTINGS, {"tokenizer_class": "TokenizersBackend"}, "knows no tokenizer_class"),
        ("config.json", {"rope_parameters": ROPE}, "reads no rope_theta in rope_parameters"),
        ("generation_config.json", {"no_repeat_ngram_size": 3}, "asks for no_repeat_ngram_size 3, which is not"),
    ],
)
def test_what_is_read_otherwise_is_named(doctor, tmp_path, file, changes, said):
    edit(tmp_path / "target" / file, **changes)
    out, target = doctor()
    assert len(target["notes"]) == 1 and said in target["notes"][0] and f"  note: {target['notes'][0]}" in out


def test_a_class_that_builds_its_own_tokenizer_is_named(doctor, tmp_path):
    for name in ("target", "draft"):
        edit(tmp_path / name / "config.json", model_type="qwen2")
    out, target = doctor()
    (note,) = target["notes"]
    assert "AutoTokenizer" in note and "the normaliser is absent in one" in note and "becomes" in note


def test_several_ends_and_the_tokenizers_own_are_in_words(doctor, tmp_path):
    edit(tmp_path / "target" / "generation_config.json", eos_token_id=[7, 0])
    assert "ends of text: 7, 0" in doctor()[0]
    for file in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / "target" / file).read_text())
        content.pop("eos_token_id")
        (tmp_path / "target" / file).write_text(json.dumps(content))
    assert "ends of text: 0, by the tokenizer alone" in doctor()[0]


def test_more_tokens_at_the_end_of_the_drafts_are_no_difference(doctor, tmp_path):
    from adaspec_jax import data, models

    tokenizer = data.load_tokenizer(tmp_path / "draft")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    shutil.rmtree(tmp_path / "draft")
    tiny_pair.save(tmp_path / "draft", tiny_pair.LLAMA | {"vocab_size": 288}, with_tokenizer=False)
    models.write_tokenizer(tokenizer, tmp_path / "draft")
    assert "differ" not in doctor()[0]
