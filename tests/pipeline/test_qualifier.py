"""A third model between draft and target: a stage of its own beside the others, which stay as they are."""

import dataclasses
import shutil

import numpy as np
import pytest

from adaspec_jax import models, pipeline, planning
from adaspec_jax.config import GPTNeoX, Qualifier, flatten, validate, with_cut
from adaspec_jax.devices import topologies
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import ablation
from adaspec_jax.pipeline.arms import checked_arms
from adaspec_jax.pipeline.workdir import Workdir
from tests.pipeline.test_arms import short

STAGES = ("target", "reference", "draft")


def between(config, **changes):
    """The same with a qualifier of one more layer than the draft."""
    sizes = dataclasses.replace(config.draft.architecture, num_hidden_layers=2)
    fit = {"architecture": sizes, "epochs": 0.5, "batch_size": 8, "lr": 3e-3}
    return dataclasses.replace(config, qualifier=Qualifier(**fit | changes))


@pytest.fixture(scope="module")
def finished(few_costs_throughout, tmp_path_factory):
    directory, config = tmp_path_factory.mktemp("qualifier") / "run", short()
    return directory, config, pipeline.run(between(config), directory)


def test_it_has_a_stage_a_directory_and_a_row_of_the_report(finished):
    directory, config, report = finished
    assert set(report["drafts"]) == {"base", "reference", "qualifier", "draft"}
    assert report["models"]["draft"] < report["models"]["qualifier"] != report["models"]["target"]
    assert report["stages"]["qualifier"]["epochs"] == 0.5
    assert not any("qualifier" in pair for pair in report["paired"])  # which is of other sizes
    kept = models.load(directory / "qualifier")
    assert kept.config.num_layers == 2 and kept.config.vocab_size == models.load(directory / "draft").config.vocab_size


@pytest.mark.slow
def test_a_run_of_two_models_stays_as_it_is_where_one_is_added(finished, tmp_path):
    directory, config, with_three = finished
    first = pipeline.run(config, tmp_path / "run")
    assert "qualifier" not in first["drafts"] and "qualifier" not in first["models"]
    before = {stage: (tmp_path / "run" / stage / "model.safetensors").read_bytes() for stage in STAGES}
    report = pipeline.run(between(config), tmp_path / "run")
    assert report["drafts"] == with_three["drafts"]
    for stage in STAGES:
        assert (tmp_path / "run" / stage / "model.safetensors").read_bytes() == before[stage]
    for name in ("reference", "draft"):
        assert report["drafts"][name] == first["drafts"][name]


def test_its_stage_learns_from_the_target_on_every_label(finished):
    directory = finished[0]
    lines = [line for line in (directory / "qualifier" / "metrics.jsonl").read_text().splitlines() if line]
    assert lines and not any("share_kept" in line for line in lines)
    assert (directory / "report.html").read_text().count("<h3>Qualifier: distillation</h3>") == 1


def test_other_settings_redo_it_alone(finished):
    directory, config, _ = finished
    with pytest.raises(UserError, match=r"qualifier was made with lr=0.003, not 0.001; delete it to redo it"):
        pipeline.run(between(config, lr=1e-3), directory)


def test_it_is_cut_from_the_target_as_a_draft_is(finished):
    config = with_cut(between(finished[1], init="cut"))
    count = config.target.architecture.num_layers
    assert config.qualifier.layers[0] == 0 and config.qualifier.layers[-1] == count - 1
    assert config.qualifier.architecture.hidden_size == config.target.architecture.hidden_size
    assert with_cut(config) == config
    assert flatten(config)["qualifier.layers"] == config.qualifier.layers


def test_a_cut_one_begins_as_the_targets_layers(finished):
    directory, config, _ = finished
    cut = between(config, init="cut", layers=(0,), epochs=0.2, lr=1e-9, weight_decay=0.0)
    shutil.rmtree(directory / "qualifier")
    pipeline.run(cut, directory)
    ours, theirs = models.load(directory / "qualifier"), models.cut(models.load(directory / "target"), (0,))
    np.testing.assert_allclose(
        ours.params["embed"]["embedding"], theirs.params["embed"]["embedding"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"layers": (0,)}, r'qualifier.layers .* is for qualifier.init "cut", and that is "random"'),
        ({"init": "cut", "layers": (9,)}, "qualifier.layers has 9, and the target has the layers 0 to"),
        ({"architecture": None}, "qualifier.architecture is None: say which model: --config.qualifier.init="),
        ({"architecture": GPTNeoX(hidden_size=30, num_attention_heads=4)}, "qualifier.architecture: "),
        ({"epochs": -1.0}, "qualifier.epochs"),
    ],
)
def test_what_it_cannot_be_is_one_line(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        validate(with_cut(between(short(), **changes)))


def test_another_vocabulary_is_refused_before_it_is_trained(finished):
    config = finished[1]
    sizes = dataclasses.replace(config.draft.architecture, vocab_size=config.draft.architecture.vocab_size + 128)
    short_of = dataclasses.replace(config.draft.architecture, max_position_embeddings=16)
    for wrong, says in (
        ({"architecture": sizes}, "the qualifier .* must share its target's vocabulary"),
        ({"architecture": short_of}, "the qualifier random has a context of 16 tokens"),
        ({"init": "/nowhere"}, "/nowhere"),
    ):
        other = finished[0].parent / "other"
        with pytest.raises(UserError, match=says):
            pipeline.run(between(config, **wrong), other)
        assert not (other / "target").exists()  # said before hours were spent on it
        shutil.rmtree(other, ignore_errors=True)


def test_other_drafts_and_references_leave_it_where_it_is(tmp_path):
    config, workdir = between(short()), Workdir(tmp_path / "run")
    arms = checked_arms(config, {})
    workdir.claim(config, arms)
    for name in ("target", "qualifier"):
        workdir.stage(name).mkdir()
        workdir.finish(name, {})
    sizes = dataclasses.replace(config.draft.architecture, hidden_size=24)
    other = dataclasses.replace(config.draft, architecture=sizes)
    for changed in (
        dataclasses.replace(config, draft=other),
        dataclasses.replace(config, reference=dataclasses.replace(config.reference, lr=1e-9)),
    ):
        workdir.claim(changed, arms)
        assert workdir.finished("qualifier") == {}
        workdir.claim(config, arms)
    with pytest.raises(UserError, match="teacher='hidden', not 'recompute'.*delete .*qualifier"):
        workdir.claim(dataclasses.replace(config, teacher="recompute"), arms)


def test_an_ablation_has_no_row_for_it(finished):
    """It is of other sizes than the drafts that are compared."""
    directory, config, report = finished
    shutil.copytree(directory, directory.parent / "ablation" / "seed0")
    own = {"draft": config.draft, "reference": config.reference}
    found = ablation.summarised([], directory.parent / "ablation", [report], **own, resamples=10, settings={})
    assert "qualifier" in report["drafts"] and set(found["arms"]) == {"reference", "draft"}


def test_it_is_planned_as_the_others_are():
    made = planning.Plan(between(short()), topologies.find("cpu"), compiling=False)
    found = made.stage("qualifier", search=False)
    assert found["hbm_bytes"] > 0 and found["epochs"] == 0.5
    with pytest.raises(KeyError):
        planning.Plan(short(), topologies.find("cpu"), compiling=False).stage("qualifier")
