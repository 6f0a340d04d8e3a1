"""A stop head in a run: fitted to the finished draft, kept beside it, and what decoding stops by."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from adaspec_jax import methods, models, pipeline
from adaspec_jax.config import validate
from adaspec_jax.decoding.stopping import Survival
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.reporting import read_metrics
from tests.pipeline.test_arms import short
from tests.running import command_line


def stopped(head="epochs=0.5,lr=0.001", **changes):
    config = short(**changes)
    config.draft = dataclasses.replace(config.draft, kind="specdec_pp", head=head)
    return config


@pytest.mark.slow
def test_a_run_fits_a_head_that_decoding_stops_by(few_costs_throughout, tmp_path, capsys, monkeypatch):
    directory = tmp_path / "run"

    def stops(step):
        return (directory / "draft" / "stage.json").is_file() and step > 1

    monkeypatch.setattr("adaspec_jax.devices.processes.stopping", stops)
    with pytest.raises(Stopped):
        pipeline.run(stopped(), directory)
    monkeypatch.setattr("adaspec_jax.devices.processes.stopping", lambda step: False)
    assert (directory / "stop").is_dir() and not (directory / "draft" / "stop_head").exists()
    report = pipeline.run(stopped(), directory)
    assert report["drafts"]["draft"]["prompts"]
    lines = read_metrics(directory / "stop" / "metrics.jsonl")
    assert 0 < lines[-1]["stays"] < 1 and 0 < lines[-1]["said"] < 1
    assert methods.method_for([str(directory / "draft")]) == "specdec_pp"
    given, _ = load_given(str(directory / "target"), [str(directory / "draft")])
    stop = methods.find("specdec_pp").make(given).stop
    assert isinstance(stop, Survival) and isinstance(stop.head, models.StopHead)
    kept = models.load_stop_head(directory / "stop" / "stop_head", given.draft.config.hidden_size)
    jax.tree.map(np.testing.assert_array_equal, stop.head, kept)
    pair = ("--target", directory / "target", "--draft", directory / "draft")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Tom has 3"}\n{"prompt": "Ann"}\n')
    how = ("--methods", "specdec_pp", "--prompts", tmp_path / "prompts.jsonl", "--max_new_tokens", 12)
    status, _, errors = command_line(capsys, monkeypatch, "benchmark", *pair, *how, "--json", tmp_path / "out.json")
    assert status == 0, errors
    assert json.loads((tmp_path / "out.json").read_text())["methods"]["specdec_pp"]["identical_to_plain"] == 2
    out = ("--workdir", directory, "--stage", "draft", "--out", tmp_path / "out")
    assert command_line(capsys, monkeypatch, "export", *out)[0] == 0
    assert models.load_stop_head(tmp_path / "out" / "stop_head", given.draft.config.hidden_size) is not None


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("kept=1.5", "config.draft.head: kept is 1.5; it must be at least 0 and below 1"),
        ("steps=3", 'config.draft.head: the kind specdec_pp has no knob "steps"'),
        ("epochs=0.0", "config.draft.head: epochs is 0.0; it must be above 0"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_before_anything_is_done(tmp_path, head, says):
    with pytest.raises(UserError, match=says):
        pipeline.run(stopped(head), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_laws_is_refused():
    with pytest.raises(UserError, match='teacher "top_k" does not know how likely'):
        validate(stopped(teacher="top_k"))
