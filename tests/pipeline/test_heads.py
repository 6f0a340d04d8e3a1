"""Heads on the target's features in a run: stages, store, resumption and report are those of any draft."""

import shutil

import jax
import numpy as np
import pytest

from adaspec_jax import methods, models, pipeline, planning
from adaspec_jax.config import Draft, Llama, Llama3Rope, validate, with_cut
from adaspec_jax.devices import topologies
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.pipeline.teacher_features import column_of
from adaspec_jax.reporting import read_metrics
from tests.pipeline.test_arms import short
from tests.running import command_line, slow

STAGES = ("reference", "draft")


def with_head(kind="eagle3", head="steps=2,vocabulary=200", **changes):
    config = short(**changes)
    config.draft = Draft(kind=kind, head=head, epochs=0.4, batch_size=8, lr=5e-3)
    return config


@pytest.fixture(scope="module")
def finished(few_costs_throughout, tmp_path_factory):
    directory = tmp_path_factory.mktemp("heads") / "run"
    return directory, pipeline.run(with_head(), directory)


@pytest.fixture
def on_its_target(finished, tmp_path):
    """`begun(name)`: a new directory with the run's finished target, for configs that begin alike."""

    def begun(name):
        directory = tmp_path / name
        for folder in ("tokenizer", "target"):
            shutil.copytree(finished[0] / folder, directory / folder)
        shutil.copy(finished[0] / "config.json", directory)
        return directory

    return begun


def weights(directory):
    return {stage: (directory / stage / "model.safetensors").read_bytes() for stage in STAGES}


def test_reference_and_draft_are_heads_on_the_target(finished):
    directory, report = finished
    assert set(report["drafts"]) == {"base", "reference", "draft"} and report["stages"]["draft"]["steps"] > 0
    target = models.load(directory / "target").with_vocabulary(320)
    for stage in STAGES:
        head = models.load_head(directory / stage, target)
        assert head.config.name == "eagle3" and head.config.vocabulary == 200 and head.config.steps == 2
        assert head.num_params == report["models"][stage] < report["models"]["target"]
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]
    line = read_metrics(directory / "draft" / "metrics.jsonl")[-1]
    assert 0.3 < line["share_kept"] < 0.6 and 0 < line["acceptance"] < 1
    assert "share_kept" not in read_metrics(directory / "reference" / "metrics.jsonl")[-1]
    assert methods.method_for([str(directory / "draft")]) == "eagle3_chain"


def test_an_interrupted_run_goes_on_to_the_same_heads(finished, on_its_target, monkeypatch):
    directory, seen = on_its_target("resumed"), []

    def stops(step):
        seen.append(step)
        return len(seen) == 6

    monkeypatch.setattr("adaspec_jax.devices.processes.stopping", stops)
    with pytest.raises(Stopped):
        pipeline.run(with_head(), directory)
    monkeypatch.undo()
    report = pipeline.run(with_head(), directory)
    assert weights(directory) == weights(finished[0])
    assert report["drafts"] == finished[1]["drafts"]


def test_hidden_states_may_be_computed_again_at_every_step(finished, on_its_target):
    directory = on_its_target("recomputed")
    pipeline.run(with_head(teacher="recompute"), directory)
    for stage in STAGES:
        ours, theirs = (read_metrics(path / stage / "metrics.jsonl") for path in (directory, finished[0]))
        for a, b in zip(ours, theirs, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)


def test_kinds_share_a_store_and_write_the_layers_that_are_new(finished, on_its_target, tmp_path):
    store, config = tmp_path / "store", with_head("medusa", "heads=2", teacher_store=str(tmp_path / "store"))
    pipeline.run(config, on_its_target("medusa"))
    kept = {file: file.stat().st_mtime_ns for file in store.glob("*.npy")}
    assert {file.name.rpartition("-")[0] for file in kept} == {column_of(-1)}
    other = with_head("hydra", "heads=2,hard=false", teacher_store=str(store))
    report = pipeline.run(other, on_its_target("hydra"))
    assert {file: file.stat().st_mtime_ns for file in store.glob("*.npy")} == kept
    assert report["drafts"]["draft"]["judged"] > 0 and report["speed"]["draft_length"] == 2


def test_stored_hidden_states_may_be_rounded(on_its_target, tmp_path):
    store = tmp_path / "store"
    config = with_head("eagle", "", teacher_store=str(store), teacher_dtype="bfloat16")
    pipeline.run(config, on_its_target("rounded"))
    [file, *_] = store.glob("*.npy")
    assert np.load(file).dtype == np.uint16


@pytest.mark.parametrize(("kind", "head"), [("eagle3", "steps=2,vocabulary=200"), slow("hydra_plus", "heads=2")])
def test_a_run_in_bfloat16_decodes_its_heads(tmp_path, kind, head):
    report = pipeline.run(with_head(kind, head, dtype="bfloat16"), tmp_path / "run")
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["drafts"]["draft"]["judged"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eagle3", "medusa", "hydra_plus"])
def test_devices_change_nothing(finished, on_its_target, kind):
    head = "steps=2,vocabulary=200" if kind == "eagle3" else "heads=2"
    reports = {}
    for data in (1, 4):
        config = with_head(kind, head)
        config.mesh.data = data
        reports[data] = pipeline.run(config, on_its_target(f"{kind}_{data}"))
    for label in ("reference", "draft"):
        one, four = (reports[data]["drafts"][label]["expected_alpha"] for data in (1, 4))
        assert one == pytest.approx(four, abs=2e-3)


def test_mistakes_are_said_before_anything_is_done(tmp_path):
    mistakes = {
        "no kind": (with_head("eagel"), r'kind "eagel" are not known here; did you mean "eagle"'),
        "no knob": (with_head(head="step=2"), r'has no knob "step"; did you mean "steps"'),
        "no number": (with_head(head="steps=x"), r'eagle3.steps is "x"; give such as 7'),
        "no steps": (with_head(head="steps=0"), r"steps is 0; it must be at least 1"),
        "no such layer": (with_head(head="taps=0-7"), r"taps has 7; the target has layers 0 to"),
        "too many tokens": (with_head(head="vocabulary=999"), r"vocabulary is 999; the target has 320 tokens"),
        "not spelt": (with_head(head="steps"), r'config.draft.head is "steps"; give KNOB=VALUE'),
        "top_k": (with_head(teacher="top_k"), r'teacher "top_k" knows no hidden states'),
    }
    for name, (config, said) in mistakes.items():
        with pytest.raises(UserError, match=said):
            validate(with_cut(config))
            pipeline.run(config, tmp_path / name)
        assert not (tmp_path / name / "target").exists()
    on_policy = with_head()
    on_policy.answers.source = "draft"
    begun = with_head()
    begun.draft.init = "somewhere"
    idle = short()
    idle.draft.head = "steps=2"
    for config, said in {
        r'answers.source "draft" samples from a draft that is a model': on_policy,
        r"a head begins at random": begun,
        r'draft.head "steps=2" is for a head, and draft.kind is "model"': idle,
    }.items():
        with pytest.raises(UserError, match=config):
            validate(said)


def test_a_head_of_another_target_is_refused_by_every_door(finished, tmp_path, capsys, monkeypatch):
    directory, _ = finished
    sizes = {"vocab_size": 320, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    sizes |= {"num_key_value_heads": 3, "intermediate_size": 32, "max_position_embeddings": 256}
    other = Llama(**sizes, rope_scaling=Llama3Rope(rope_type="default"))
    models.save(models.build(other.hf_config(), jax.random.key(0)), tmp_path / "other")
    for file in (directory / "tokenizer").iterdir():
        shutil.copy(file, tmp_path / "other")
    pair = ("--target", tmp_path / "other", "--draft", directory / "draft")
    status, _, said = command_line(capsys, monkeypatch, "generate", *pair, "--prompt", "A")
    assert status == 2 and "hidden size" in said and said.count("\n") == 1


@pytest.mark.parametrize("door", ["schedule", "parity"])
def test_doors_that_need_a_draft_model_say_so(finished, door, capsys, monkeypatch):
    directory, _ = finished
    asked = ("--target", directory / "target", "--draft", directory / "draft", "--task", "word_problems")
    arguments = ("--workdir", directory) if door == "parity" else asked
    status, _, said = command_line(capsys, monkeypatch, "parity.__main__" if door == "parity" else door, *arguments)
    assert status == 2 and "head" in said and "model" in said and said.count("\n") == 1


def test_a_plan_has_the_heads_bytes(finished):
    plan = planning.Plan(with_head(), topologies.find("cpu"), compiling=True)
    figures = {stage: plan.stage(stage, search=False) for stage in ("reference", "decode")}
    assert all(each["fits"] and each["hbm_bytes"] > 0 for each in figures.values())
