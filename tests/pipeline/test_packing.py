"""A run whose examples share rows: its steps, what it stores, where it stops, and what it refuses."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from adaspec_jax import data, pipeline, planning
from adaspec_jax.config import Answers, Experiment, validate
from adaspec_jax.devices import processes, sharding, topologies
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.pipeline import whole_run
from adaspec_jax.pipeline.program import program, step_arguments
from adaspec_jax.pipeline.stage_spec import stage_spec
from adaspec_jax.reporting import read_metrics
from adaspec_jax.training import Batch, Frozen
from tests.pipeline.test_arms import short
from tests.training import setting

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
STAGES = ("target", "reference", "draft")


def experiment(rows=None, **changes):
    config = short(**changes)
    config.draft.epochs, config.draft.scope = 1, "sequence"
    config.data = dataclasses.replace(config.data, packing=True, max_length=64, buckets=(64,), **rows or {})
    return config


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Files of short rows, as a config names them."""
    folder = tmp_path_factory.mktemp("rows")
    for name, count in {"train": 96, "evaluation": 4}.items():
        lines = [{"prompt": f"{name} {i}?", "answer": f"{i} " * (1 + i % 5)} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "evaluation")}
    return files | {"prompt_column": "prompt", "answer_column": "answer"}


@pytest.fixture(scope="module")
def finished(rows, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed") / "run"
    return directory, unmeasured(experiment(rows), directory)


def unmeasured(config, directory):
    """What the report of a run would say of data and stages."""

    def report(start, *_, **__):
        return {"data": start.text.record, "stages": {label: start.workdir.finished(label) for label in start.stages}}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(whole_run, "write_report", report)
        return pipeline.run(config, directory)


def weights(directory):
    return [(directory / label / "model.safetensors").read_bytes() for label in STAGES]


def test_steps_follow_from_packed_rows_and_the_report_has_them(finished):
    directory, report = finished
    said = report["data"]["train"]
    assert said["packed_rows"] < 0.7 * said["examples"] == 0.7 * 96
    assert said["tokens_per_packed_row"] == said["tokens"] / said["packed_rows"] <= 64
    assert report["stages"]["target"]["steps"] == data.num_steps(said["packed_rows"], 8, 1)
    assert report["stages"]["draft"]["steps"] == data.num_steps(said["packed_rows"], 20, 2.5)
    assert (directory / "teacher").is_dir()
    lines = read_metrics(directory / "reference" / "metrics.jsonl")
    assert sum(line["tokens"] for line in lines) == pytest.approx(said["supervised_tokens"], rel=0.35)  # last batch


def test_a_run_stopped_in_every_stage_ends_with_the_same_bits(finished, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "stopping", lambda step: step == 1)
    for stage in STAGES:
        with pytest.raises(Stopped, match=f"step 1 of 2 of the {stage} stage"):
            unmeasured(experiment(rows), tmp_path / "run")
    unmeasured(experiment(rows), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished[0])


def test_the_curves_of_recomputing_are_those_of_the_store(finished, rows, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for name in ("reference", "draft", "teacher"):
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / "decisions.json").unlink()
    unmeasured(experiment(rows, teacher="recompute"), tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()
    for stage in STAGES[1:]:
        files = [run / stage / "metrics.jsonl" for run in (tmp_path / "run", finished[0])]
        ours, theirs = ([[line[name] for name in ("loss", "tokens")] for line in read_metrics(file)] for file in files)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, err_msg=stage)


def test_packing_is_data_and_its_change_is_refused_once_a_stage_is_trained(finished, rows):
    config = experiment(rows)
    config.data.packing = False
    with pytest.raises(UserError, match="was made with data.packing=True, not False; use another"):
        pipeline.run(config, finished[0])


@pytest.mark.slow
def test_the_targets_own_answers_are_packed(rows, tmp_path):
    config = experiment(rows, answers=Answers(source="target", max_new_tokens=8), teacher="recompute")
    report = pipeline.run(config, tmp_path / "run")
    said = report["data"]["answers"]
    assert said["packed_rows"] < 0.7 * said["rows"] and said["tokens_per_packed_row"] <= 64
    assert report["stages"]["reference"]["steps"] == data.num_steps(said["packed_rows"], 8, 1)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"answers": Answers(source="draft")}, r'data.packing is True, and answers.source "draft" samples one answer'),
        ({"answers": Answers(source="mixed")}, r'data.packing is True, and answers.source "mixed" samples one answer'),
        ({"attention": "cudnn", "dtype": "bfloat16"}, r'data.packing is True, and attention "cudnn" does not keep'),
    ],
)
def test_what_packs_cannot_go_with_is_refused_by_both_keys(changes, keys):
    config = dataclasses.replace(Experiment(), **changes)
    validate(config)
    config.data.packing = True
    with pytest.raises(UserError, match=keys) as refused:
        validate(config)
    assert "\n" not in str(refused.value) and "set data.packing=False" in str(refused.value).replace("or ", "set ")


def test_memory_and_plan_compile_the_step_that_runs():
    config = experiment()
    packs = data.packed([data.Encoded(np.arange(1, 21, dtype=np.int32), 3)] * 60, 64, seed=0)
    for packing, rows in ((True, packs), (False, [data.Encoded(row.tokens, row.prompt_length) for row in packs])):
        config.data.packing = packing
        mesh = sharding.make_mesh(1)
        stage = stage_spec(config, config.draft, steps=4, mesh=mesh, backend="cpu")
        made, model = program(stage, stage.memory), setting.model(0)
        frozen = Frozen(setting.model(1), setting.model(1))
        planned = step_arguments(made, model, frozen, mesh=mesh, rows=stage.batch_size, length=64)[2]
        batches = data.train_batches(rows, batch_size=20, epochs=1, seed=0, buckets=(64,), pad_id=0)
        seen = Batch(**next(batches))
        kinds = lambda batch: jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), batch)  # noqa: E731
        assert kinds(planned) == kinds(seen)
        assert (planned.segments_BT is not None) == packing


@pytest.mark.slow
def test_a_plan_knows_the_arrays_of_packs_and_leaves_the_number_of_steps_open():
    found = {}
    for packing in (True, False):
        config = experiment()
        config.data.packing = packing
        found[packing] = planning.Plan(config, topologies.find("cpu")).stage("reference", search=False)
    segments = 4 * found[True]["batch"] * found[True]["length"]
    assert found[True]["arguments_bytes"] - found[False]["arguments_bytes"] == pytest.approx(segments, abs=64)
    assert found[True]["steps"] is None and found[True]["hours"] is None and found[False]["steps"] == 8
