"""A run on a model that somebody brings: its ends of text, its tokenizer, the same ids all the way to its export."""

import json
import shutil

import pytest
from tokenizers import Tokenizer

from adaspec_jax import data, pipeline
from adaspec_jax.config import Answers, Qwen2
from adaspec_jax.errors import UserError
from tests.pipeline.test_pipeline import FEW, SIZES, experiment
from tests.running import command_line

pytestmark = pytest.mark.usefixtures("few_costs_throughout")


def given(target=None, tokenizer=None):
    """A short run; with `target` on that directory as it is."""
    config = experiment()
    config.target.epochs, config.reference.epochs, config.draft.epochs = (0 if target else 1), 0.5, 0.5
    sizes = SIZES | {"num_key_value_heads": 2}
    config.target.architecture = Qwen2(hidden_size=16, num_attention_heads=2, intermediate_size=32, **sizes)
    config.draft.architecture = Qwen2(hidden_size=16, num_attention_heads=2, intermediate_size=32, **sizes)
    for name, value in FEW.items():
        setattr(config.evaluation, name, value)
    if target:
        config.target.init, config.tokenizer.init = str(target), str(tokenizer or target)
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of Qwen2 models, whose model_type makes transformers 5 read text by rules of its own."""
    directory = tmp_path_factory.mktemp("made") / "run"
    return directory, pipeline.run(given(), directory)


def test_a_run_its_stages_its_export_and_evaluate_read_the_same_ids(made, tmp_path, capsys, monkeypatch):
    directory, report = made
    out = tmp_path / "export"
    arguments = ["--workdir", directory, "--stage", "draft", "--out", out]
    status, said, errors = command_line(capsys, monkeypatch, "export", *arguments)
    assert status == 0, errors
    rows = data.load_examples("word_problems", "train", num=64)
    texts = [row.prompt + row.answer for row in rows]
    file = Tokenizer.from_file(str(directory / "tokenizer" / "tokenizer.json"))
    expected = [encoding.ids for encoding in file.encode_batch(texts, add_special_tokens=False)]
    for folder in (directory / "tokenizer", directory / "target", directory / "draft", out):
        assert data.load_tokenizer(folder)(texts)["input_ids"] == expected
    assert (out / "tokenizer.json").read_bytes() == (directory / "tokenizer" / "tokenizer.json").read_bytes()
    pair = ["--target", directory / "target", "--draft", directory / "draft", "--task", "word_problems"]
    knobs = ["--num_prompts", 4, "--max_new_tokens", 8, "--draft_length", 2, "--json", tmp_path / "e.json"]
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *pair, *knobs)
    assert status == 0, errors
    again = json.loads((tmp_path / "e.json").read_text())
    assert again["data"]["tokenizer_sha256"] == report["data"]["tokenizer_sha256"]
    assert again["drafts"]["draft"]["judged"] == report["drafts"]["draft"]["judged"]
    assert again["drafts"]["draft"]["accepted"] == report["drafts"]["draft"]["accepted"]


def test_answers_end_at_every_end_the_target_names_and_exports_keep_them(made, tmp_path, capsys, monkeypatch):
    theirs = tmp_path / "theirs"
    shutil.copytree(made[0] / "target", theirs)
    newline = data.load_tokenizer(theirs)("\n")["input_ids"][-1]
    asks = {"eos_token_id": [newline, 0], "no_repeat_ngram_size": 9}
    (theirs / "generation_config.json").write_text(json.dumps(asks))
    config = given(theirs)
    config.answers = Answers(source="target", max_new_tokens=12, temperature=1.0)
    report = pipeline.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "note: generation_config.json asks for no_repeat_ngram_size 9, which is not to be had here" in said
    assert report["settings"]["eos_id"] == [0, newline]  # what closes rows first
    assert any("no_repeat_ngram_size" in note for note in report["data"]["notes"])
    import numpy as np

    ends = {newline, 0}
    for file in (tmp_path / "run" / "answers").glob("*.npz"):
        with np.load(file) as arrays:
            prompts = {tuple(row.tokens[: row.prompt_length]) for row in _rows(theirs)}
            for tokens_S, length in zip(arrays["tokens"], arrays["lengths"], strict=True):
                cut = next(n for n in range(1, length) if tuple(tokens_S[:n]) in prompts)
                answer = tokens_S[cut:length].tolist()
                assert not ends & set(answer[:-1]) and (answer[-1] in ends or len(answer) == 12)
    for stage in ("target", "draft"):
        out = tmp_path / f"export-{stage}"
        arguments = ["--workdir", tmp_path / "run", "--stage", stage, "--out", out]
        assert command_line(capsys, monkeypatch, "export", *arguments)[0] == 0
        kept = json.loads((out / "generation_config.json").read_text())
        assert stage == "draft" or kept == asks


def _rows(directory):
    examples = data.load_examples("word_problems", "train", num=64)
    return data.encode(examples, data.load_tokenizer(directory), max_length=256, eos_id=0)[0]


def test_a_tokenizer_left_to_be_trained_names_its_key(made, tmp_path):
    config = given(made[0] / "target")
    config.tokenizer.init, config.tokenizer.vocab_size = "train", 300
    with pytest.raises(UserError, match=r'tokenizer.init is "train", and the target .* set --config.tokenizer.init='):
        pipeline.run(config, tmp_path / "run")


def test_columns_that_carry_their_marks_are_said(made, tmp_path, capsys):
    rows = [{"q": f"What is {n}?", "a": f"{n}<|endoftext|>"} for n in range(90)]
    for name, part in (("train", rows[:70]), ("held_out", rows[70:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    config = given(made[0] / "target")
    config.data.train, config.data.evaluation = (str(tmp_path / f"{n}.jsonl") for n in ("train", "held_out"))
    config.data.prompt_column, config.data.answer_column = "q", "a"
    report = pipeline.run(config, tmp_path / "run")
    assert report["data"]["train"]["ended_already"] == 70
    assert "70 of 70 training rows carry their own mark of the end of text" in capsys.readouterr().out
