"""How much longer a run takes is told by its first stage, in operations that are counted from sizes and tokens."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from adaspec_jax import data, reporting
from adaspec_jax.config import MODEL, Evaluation
from adaspec_jax.pipeline.forecast import Forecast, forecast
from adaspec_jax.pipeline.stage_log import StageLog

SIZES = {"target": 1000, "draft": 100, "qualifier": None}
KNOBS = {"drafts": 3, "answers": "dataset", "teacher": "auto"}
TEXT = SimpleNamespace(rows=[data.Encoded(np.zeros(50, np.int32), 10)] * 40, held_out=[0] * 8)


def stage(label, *, name=None, kind=MODEL, steps=10, batch_size=8):
    return SimpleNamespace(label=label, name=name or label, kind=kind, steps=steps, batch_size=batch_size)


def told(*stages, sizes=SIZES, **knobs):
    todo = {each.label: each for each in stages}
    return forecast(todo, TEXT, sizes, Evaluation(num_prompts=8, batch_size=4), **KNOBS | knobs)


def test_what_follows_a_stage_is_told_by_its_speed_and_as_many_programs_as_are_still_to_be_compiled():
    plan = Forecast({"target": 600.0, "said": 100.0, "draft": 60.0}, measuring=40.0)
    assert plan.after("target", 0.5, 30.0, compile_seconds=0.0) == (100 + 60 + 40) / 10
    assert plan.after("target", 0.5, 30.0, compile_seconds=2.0) == 20 + 2 * (2 + 3)
    assert plan.after("draft", 0.5, 3.0, compile_seconds=0.0) == 4
    assert plan.after("target", 0.01, 0.6, compile_seconds=2.0) is None  # too little to go by
    assert plan.after("an arm that was finished earlier", 0.5, 30.0, 0.0) is None


def test_a_stage_that_is_done_goes_on_telling_how_fast_the_machine_is():
    plan = Forecast({"target": 600.0, "draft": 60.0}, measuring=40.0)
    plan.finished("target", 1.0, 60.0)
    assert plan.after("draft", 0.5, 27.0, compile_seconds=0.0) == pytest.approx(40 / (630 / 87))


def test_operations_are_two_for_a_parameter_and_token_three_times_that_in_a_step_and_a_pass_for_what_is_stored():
    plan = told(stage("target"), stage("reference"), stage("draft", steps=20))
    tokens = 10 * 8 * 50
    target, draft = 6.0 * tokens * 1000, 6.0 * tokens * 100
    measuring = Forecast({"draft": 1.0}, 0.0).after("draft", 1.0, 10.0, 0.0)
    assert measuring == 0
    alone = told(stage("draft"))  # nothing but measuring follows it
    after_draft = alone.after("draft", 1.0, 60.0, 0.0) * draft / 60
    passes = 2.0 * 40 * 50 * (1000 + 100)
    seconds = plan.after("target", 1.0, 60.0, 0.0)
    assert seconds == pytest.approx((draft + 2 * draft + passes + after_draft) * 60 / target)
    computed = told(stage("target"), stage("reference"), stage("draft", steps=20), teacher="recompute")
    at_every_step = 2.0 * tokens * (1000 + 2 * 1100)
    assert computed.after("target", 1.0, 60.0, 0.0) == pytest.approx(
        (3 * draft + at_every_step + after_draft) * 60 / target
    )


def test_nothing_is_told_of_what_cannot_be_known_beforehand():
    assert told(stage("target"), stage("draft")) is not None
    assert told(stage("target"), stage("draft"), answers="target") is None  # how long they will be nobody knows
    assert told(stage("target"), stage("draft", kind="eagle3")) is None
    assert told(stage("qualifier")) is None  # of a size that is not known yet
    assert told(stage("draft"), sizes=SIZES | {"target": None}) is None


def test_a_stages_progress_says_how_long_the_run_goes_on(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(reporting, "track", partial(reporting.track, clock=lambda: now[0]))
    plan = Forecast({"target": 100.0, "draft": 300.0}, measuring=0.0)
    with StageLog("target", tmp_path / "metrics.jsonl", 100, "", {}, plan) as log:
        log.rewind(0)
        for step in range(1, 62):
            now[0] += 6.0
            log.write(step, {"loss": 1.0})
    lines = capsys.readouterr().err.splitlines()
    (half,) = [line for line in lines if "step 50/100" in line]
    assert "5m00s left, run: about 35 min left" in half
    assert "left" not in lines[-1]  # the stage's last line says what it took
    assert plan.after("draft", 0.5, 900.0, 0.0) == 0.0
