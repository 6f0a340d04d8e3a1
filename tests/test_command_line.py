"""Mistakes on the command line and in config files are one line each, and exit status 2."""

import dataclasses
import json
from pathlib import Path

import pytest

from adaspec_jax.config import Experiment
from tests.running import CHECKOUT, command_line

QUICK = "configs/quickstart.py"
FEW = "--config.data.num_train=300"  # where the text is read before the mistake is found
MISTAKES = {
    "unknown key": (
        ["--config", QUICK, "--config.draft.lrr=1"],
        'unknown key "lrr" in config.draft; did you mean "lr"',
    ),
    "wrong type": (["--config", QUICK, "--config.draft.lr=fast"], "could not convert string to float: 'fast'"),
    "wrong choice": (["--config", QUICK, "--config.draft.scope=local"], "global, shard"),
    "no config": ([], "--config is missing"),
    "no such config": (["--config", "configs/quickstrat.py"], "did you mean"),
    "no such variant": (["--config", "configs/gsm8k_small.py:valid"], "validation"),
    "no workdir": (["--config", QUICK], "--workdir is missing"),
    "unknown task": (["--config", QUICK, "--config.data.task=gsm9k", "--workdir", "{tmp}/w"], 'did you mean "gsm8k"'),
    "missing file": (
        ["--config", QUICK, "--config.data.train=no.jsonl", "--workdir", "{tmp}/w"],
        "no data file no.jsonl",
    ),
    "malformed row": (
        ["--config", QUICK, "--config.data.train={tmp}/bad.jsonl", "--workdir", "{tmp}/w"],
        "bad.jsonl line 2",
    ),
    "vocabulary too small": (
        ["--config", QUICK, FEW, "--config.draft.architecture.vocab_size=300", "--workdir", "{tmp}/w"],
        "config.draft.architecture has a vocabulary of 300",
    ),
    "vocabularies differ": (
        ["--config", QUICK, FEW, "--config.target.architecture.vocab_size=1088", "--config.target.epochs=1"]
        + ["--workdir", "{tmp}/w"],
        "1088",
    ),
    "short context": (
        ["--config", QUICK, FEW, "--config.draft.architecture.max_position_embeddings=200"] + ["--workdir", "{tmp}/w"],
        "the draft random has a context of 200 tokens",
    ),
    "batch and mesh": (["--config", QUICK, "--config.mesh.data=3", "--workdir", "{tmp}/w"], "3 does not divide"),
    "no mesh": (["--config", QUICK, "--config.mesh.fsdp=0"], "mesh.fsdp is 0"),
    "no epochs": (
        ["--config", QUICK, "--config.reference.epochs=0", "--workdir", "{tmp}/w"],
        "reference.epochs is 0",
    ),
    "more than all": (["--config", QUICK, "--config.answers.share=2"], "answers.share is 2.0; it must be at most 1"),
    "still average": (["--config", QUICK, "--config.draft.average_decay=1"], "the average never moves"),
    "no room": (["--config", QUICK, "--config.data.max_prompt_length=256"], "leaves no room for an answer"),
    "unknown divergence": (
        ["--config", QUICK, "--config.draft.divergence=kl", "--workdir", "{tmp}/w"],
        'there is no divergence "kl"; known: forward_kl',
    ),
    "evaluation is training": (
        ["--config", QUICK, "--config.data.train={tmp}/good.jsonl", "--config.data.evaluation={tmp}/good.jsonl"]
        + ["--workdir", "{tmp}/w"],
        "2 of 2 training rows have one of 2 of 2 evaluation prompts",
    ),
    "broken config": (["--config", "{tmp}/broken.py"], "SyntaxError"),
    "config of another kind": (["--config", "{tmp}/other.py"], "dict"),
    "workdir is a file": (["--config", QUICK, "--workdir", "{tmp}/bad.jsonl"], "cannot be made"),
    "layers of no cut": (
        ["--config", QUICK, "--config.draft.layers=0,2"],
        'draft.layers (0, 2) is for draft.init "cut"',
    ),
    "layers that are not there": (
        ["--config", QUICK, "--config.draft.init=cut", "--config.draft.layers=0,3"],
        "draft.layers has 3, and the target has the layers 0 to 2",
    ),
    "layers in disorder": (
        ["--config", QUICK, "--config.draft.init=cut", "--config.draft.layers=2,0"],
        "draft.layers is (2, 0); give different numbers from 0 on in increasing order",
    ),
    "sizes of a cut": (
        ["--config", QUICK, "--config.draft.init=cut", "--config.draft.architecture.hidden_size=64"],
        "--config.draft.architecture.hidden_size=64 is given and draft.init is",
    ),
    "a target that is cut": (
        ["--config", QUICK, "--config.target.init=cut"],
        'target.init is "cut", which is for drafts',
    ),
    "stray argument": (["--config", QUICK, "extra"], "extra"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_is_one_line_and_exit_status_2(mistake, capsys, monkeypatch, tmp_path):
    arguments, says = MISTAKES[mistake]
    (tmp_path / "bad.jsonl").write_text('{"question": "q", "answer": "a"}\n{"question": "q"}\n')
    (tmp_path / "good.jsonl").write_text('{"question": "q", "answer": "a"}\n{"question": "r", "answer": "a"}\n')
    (tmp_path / "broken.py").write_text("def get_config(:")
    (tmp_path / "other.py").write_text("def get_config():\n    return {}")
    monkeypatch.chdir(CHECKOUT)
    status, out, errors = command_line(
        capsys, monkeypatch, "train", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)
    )
    assert status == 2
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and errors.splitlines()[-1] == lines[0]
    assert says in lines[0]


def test_every_config_file_resolves_and_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    sizes = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 8}
    sizes |= {"num_hidden_layers": 4, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    for name in sorted(Path("configs").glob("*.py")):
        own = [f"--config.target.init={tmp_path}"] if name.stem in ("chat", "own") else []  # for a model of the user's
        status, out, errors = command_line(capsys, monkeypatch, "train", "--config", name, *own, "--print_config")
        assert status == 0, errors
        assert set(json.loads(out)) == {f.name for f in dataclasses.fields(Experiment)}
