"""What a run may distil beside or instead of reference and draft, and on which answers; new entries of the tables."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from adaspec_jax import data, models, pipeline
from adaspec_jax.config import Answers, Draft
from adaspec_jax.data.tasks import TASKS, Example, Task
from adaspec_jax.devices import processes
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.models import families
from adaspec_jax.models.families import gpt_neox
from adaspec_jax.pipeline import whole_run
from adaspec_jax.reporting import read_metrics
from adaspec_jax.training import divergences, selection
from tests.pipeline.test_pipeline import FEW, experiment
from tests.running import CHECKOUT, command_line, slow

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
CONFIG = """
import sys
sys.path.insert(0, {checkout!r})
from tests.pipeline.test_arms import short
def get_config(variant=""):
    config = short()
    config.reference.equal_data = True
    return config
"""


def short(**changes):
    config = experiment()
    config.target.epochs = config.reference.epochs = 1
    config.draft.epochs = 0.4
    for name, value in FEW.items():
        setattr(config.evaluation, name, value)
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def with_arms(tmp_path_factory):
    directory, config = tmp_path_factory.mktemp("arms") / "run", short()
    config.reference.equal_data = True
    arms = {"random_0.4": dataclasses.replace(config.draft, selection="random")}
    return directory, config, arms, pipeline.run(config, directory, arms)


@pytest.fixture
def begun(with_arms, tmp_path):
    """`begun(name, "target", ...)` is a directory with these stages of that run, for a config that begins alike."""

    def copied(name, *stages):
        directory = tmp_path / name
        for folder in ("tokenizer", *stages):
            shutil.copytree(with_arms[0] / folder, directory / folder)
        shutil.copy(with_arms[0] / "config.json", directory)
        return directory

    return copied


def test_the_third_arm_takes_the_drafts_batches_and_the_references_loss(with_arms):
    directory, config, _, report = with_arms
    assert list(report["drafts"]) == ["base", "reference", "reference_equal_data", "random_0.4", "draft"]
    stages = report["stages"]
    for key in ("steps", "batch_size"):
        assert stages["reference_equal_data"][key] == stages["draft"][key] != stages["reference"][key]
    third, draft = (read_metrics(directory / name / "metrics.jsonl") for name in ("reference_equal_data", "draft"))
    assert [line["tokens"] for line in third] == [line["tokens"] for line in draft]  # the same batches
    assert "share_kept" not in third[0] and draft[0]["share_kept"] < 0.5
    assert {"draft-reference_equal_data", "random_0.4-reference", "draft-reference"} <= set(report["paired"])
    counts = json.loads((directory / "counts.json").read_text())
    assert sum(counts["draft"]["accepted"]) == report["drafts"]["draft"]["accepted"]


def test_arms_are_restored_and_refused_under_other_settings(with_arms, monkeypatch):
    directory, config, arms, report = with_arms
    with pytest.raises(UserError, match="random_0.4 was made with lr=0.005, not 0.1; delete it"):
        pipeline.run(config, directory, {"random_0.4": dataclasses.replace(arms["random_0.4"], lr=0.1)})
    monkeypatch.setattr(whole_run, "begin", None)
    assert pipeline.run(config, directory, arms) == report


@pytest.fixture
def of_before(with_arms, tmp_path):
    """The run with config.json, decisions.json and the stages' records as they were written before the moves."""
    written = json.loads((Path(__file__).parent / "before_the_moves.json").read_text())
    directory = tmp_path / "run"
    shutil.copytree(with_arms[0], directory)
    examples = ("examples_sha256", "tokens_sha256")  # depend on the tokenizer, so on the library's version
    for file, content in written.items():
        now = json.loads((directory / file).read_text())
        if file.endswith("stage.json"):
            content |= {key: now[key] for key in examples}
        (directory / file).write_text(json.dumps(content))
    return directory, written


def test_a_run_directory_of_before_the_moves_is_restored(with_arms, of_before, monkeypatch):
    (_, config, arms, report), (directory, written) = with_arms, of_before
    file = directory / "config.json"
    older = json.loads(file.read_text())
    for key in ("draft.selection", "answers.share", "teacher_top_k"):  # of a time when these keys were not there
        del older[key]
    file.write_text(json.dumps(older))
    monkeypatch.setattr(whole_run, "fit_stage", None)
    again = pipeline.run(config, directory, arms)
    assert again["drafts"] == report["drafts"] and again["teacher"] == written["decisions.json"]["teacher"]
    for label, record in again["stages"].items():
        assert record.items() >= written[f"{label}/stage.json"].items()


def test_a_stage_of_before_the_moves_that_is_gone_is_fitted_to_the_same_weights(with_arms, of_before):
    (made, config, arms, _), (directory, _) = with_arms, of_before
    shutil.rmtree(directory / "draft")
    pipeline.run(config, directory, arms)
    weights = [(folder / "draft" / "model.safetensors").read_bytes() for folder in (made, directory)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (None, "was made with draft.lr=0.005, not 1.0; use another --workdir"),
        ("config.json", "config.json is not valid JSON"),
        ("decisions.json", "decisions.json is not valid JSON"),
    ],
)
def test_a_run_directory_of_before_that_does_not_fit_is_refused_in_one_line(
    of_before, tmp_path, capsys, monkeypatch, damage, complaint
):
    directory, _ = of_before
    given = [] if damage else ["--config.draft.lr=1.0"]
    if damage:
        (directory / damage).write_text('{"half')
        (directory / "report.json").unlink()
    (tmp_path / "config.py").write_text(CONFIG.format(checkout=str(CHECKOUT)))
    status, _, said = command_line(
        capsys, monkeypatch, "train", "--config", tmp_path / "config.py", "--workdir", directory, *given
    )
    assert status == 2 and complaint in said and said.count("\n") == 1


@pytest.mark.parametrize("key", ["target.lr", "reference.lr", "seed", "draft.init"])
def test_an_arm_stands_in_the_way_of_what_it_follows_from(with_arms, tmp_path, key):
    """Otherwise a user who deletes the stages would compare drafts of one target with drafts of another."""
    shutil.copytree(with_arms[0], tmp_path / "run")
    for stage in ("target", "reference", "draft"):
        shutil.rmtree(tmp_path / "run" / stage)
    config = short()
    config.reference.equal_data = True
    group, _, name = key.rpartition(".")
    setattr(getattr(config, group) if group else config, name, "elsewhere" if name == "init" else 7)
    with pytest.raises(UserError, match=f"{key}=.* delete .*(reference_equal_data|random_0.4)"):
        pipeline.run(config, tmp_path / "run", with_arms[2])


def test_an_arm_whose_batch_the_devices_do_not_divide_is_refused_at_once(tmp_path):
    config = short()
    config.mesh.data = 4
    arm = dataclasses.replace(config.draft, fraction=0.6)  # 13 rows
    with pytest.raises(UserError, match="the arm odd makes batches of 13 rows"):
        pipeline.run(config, tmp_path / "run", {"odd": arm})
    with pytest.raises(UserError, match='cannot be called "teacher"'):
        pipeline.run(config, tmp_path / "run", {"teacher": arm})


@pytest.mark.slow
def test_an_arm_with_another_divergence_selects_by_it(with_arms):
    """The store holds the reference's forward KL; an arm under another measure must not take it for its own."""
    directory, config, arms, _ = with_arms
    more = arms | {"tv": dataclasses.replace(config.draft, divergence="total_variation")}
    pipeline.run(config, directory, more)
    alone = short(draft=dataclasses.replace(config.draft, divergence="total_variation"))
    alone.target.init, alone.target.epochs = str(directory / "target"), 0
    alone.tokenizer.init = str(directory / "tokenizer")
    other = directory.parent / "alone"
    pipeline.run(alone, other)
    ours, theirs = (read_metrics(file / "metrics.jsonl") for file in (directory / "tv", other / "draft"))
    # The reference was trained by another store of the same target: equal up to its rounding.
    np.testing.assert_allclose([x["loss"] for x in ours], [x["loss"] for x in theirs], rtol=1e-4)


def test_the_third_arm_may_be_added_to_a_finished_run(begun):
    config, directory = short(), begun("run", "target", "reference")
    before = pipeline.run(config, directory)
    config.reference.equal_data = True
    after = pipeline.run(config, directory)
    assert after["stages"].keys() - before["stages"].keys() == {"reference_equal_data"}
    assert {name: after["stages"][name] for name in before["stages"]} == before["stages"]
    for name in ("reference", "draft"):
        assert after["drafts"][name]["accepted"] == before["drafts"][name]["accepted"]


def test_no_reference_is_needed_where_the_drafts_average_stands_for_it(begun):
    config, directory = short(), begun("run", "target")
    config.reference.epochs, config.draft.reference = 0, "moving_average"
    report = pipeline.run(config, directory)
    assert list(report["drafts"]) == ["base", "draft"] and list(report["paired"]) == ["draft-base"]
    assert not (directory / "reference").exists()
    assert pipeline.run(config, directory) == report


@pytest.mark.parametrize("source", [slow("draft"), "mixed"])
def test_drafts_are_distilled_on_their_own_answers(begun, capsys, source):
    config, directory = short(answers=Answers(source=source, max_new_tokens=8)), begun("run", "target")
    pipeline.run(config, directory)
    assert "cannot be stored" in capsys.readouterr().out and not (directory / "teacher").exists()
    tokens = [line["tokens"] for line in read_metrics(directory / "reference" / "metrics.jsonl")]
    most = 8 * 8  # rows times tokens; the data set's answers are longer
    assert min(tokens) <= most and (max(tokens) > most) == (source == "mixed")


def test_drafts_are_distilled_on_the_targets_answers_which_are_kept(begun):
    config = short(answers=Answers(source="target", max_new_tokens=12, temperature=0.0))
    directory = begun("run", "target")
    report = pipeline.run(config, directory)
    assert report["data"]["answers"]["source"] == "target"
    tokenizer = data.load_tokenizer(directory / "tokenizer")
    target = models.load(directory / "target").with_vocabulary(len(tokenizer))
    kept = np.load(directory / "answers" / "000000.npz")
    tokens, length = kept["tokens"][0], int(kept["lengths"][0])
    choices = np.argmax(np.asarray(target(tokens[None, :length])[0][0]), axis=-1)
    np.testing.assert_array_equal(tokens[length - 3 : length], choices[length - 4 : length - 1])
    (directory / "draft" / "stage.json").unlink()
    files = sorted((directory / "answers").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    pipeline.run(config, directory)
    assert [file.stat().st_mtime_ns for file in files] == before  # sampled once
    origin = directory / "answers" / "origin.json"
    origin.write_text(origin.read_text().replace('"temperature": 0.0', '"temperature": 1.0'))
    (directory / "draft" / "stage.json").unlink()
    with pytest.raises(UserError, match="sampled with another temperature"):
        pipeline.run(config, directory)


@pytest.mark.parametrize("way", [slow("moving_average"), "random and on-policy"])
def test_a_stopped_run_goes_on_to_the_same_bits(begun, tmp_path, monkeypatch, way):
    config = short()
    config.draft.epochs = 1.0
    if way == "random and on-policy":
        config.answers, config.draft.selection = Answers(source="mixed", max_new_tokens=8), "random"
        whole, stopped = (begun(name, "target") for name in ("whole", "stopped"))
    else:
        config.draft.reference, config.draft.average_decay = "moving_average", 0.8
        whole, stopped = (begun(name, "target", "reference") for name in ("whole", "stopped"))
    monkeypatch.setattr(whole_run, "write_report", lambda *_, **__: {})  # no measurement is looked at
    pipeline.run(config, whole)
    if not (stopped / "reference").exists():
        shutil.copytree(whole / "reference", stopped / "reference")
    for name in ("config.json", "decisions.json"):
        shutil.copy(whole / name, stopped / name)
    monkeypatch.setattr(processes, "stopping", lambda step: step == 4)
    with pytest.raises(Stopped):
        pipeline.run(config, stopped)
    monkeypatch.setattr(processes, "stopping", lambda step: False)
    pipeline.run(config, stopped)
    files = [(directory / "draft" / "model.safetensors").read_bytes() for directory in (whole, stopped)]
    assert files[0] == files[1]


def test_a_toy_task_family_divergence_and_selection_are_a_table_entry_each(tmp_path, monkeypatch):
    rows = [{"n": str(n), "double": str(2 * n)} for n in range(90)]
    toy = Task(
        name="toy",
        columns=("n", "double"),
        format=lambda row: Example(f"twice {row['n']} is ", row["double"]),
        splits={"train": "train", "test": "test"},
        generate=lambda num, *, seed, split: rows[:80] if split == "train" else rows[80:],
        generated_rows={"train": 80, "test": 10},
    )

    def squared_distance(draft_logits_BTV, target_logits_BTV):
        laws = (jax.nn.softmax(logits, axis=-1) for logits in (draft_logits_BTV, target_logits_BTV))
        return jax.numpy.sum((next(laws) - next(laws)) ** 2, axis=-1)

    def everything(gap_BT, mask_BT, fraction, key):
        return mask_BT

    class Renamed:  # a family: another model_type and other names on disk
        ARCHITECTURE, IGNORED, table = "ToyForCausalLM", gpt_neox.IGNORED, staticmethod(gpt_neox.table)

        @staticmethod
        def config(hf):
            return dataclasses.replace(gpt_neox.config(hf), model_type="toy")

    monkeypatch.setitem(TASKS, "toy", toy)
    monkeypatch.setitem(families.FAMILIES, "toy", Renamed)
    monkeypatch.setitem(divergences.DIVERGENCES, "squared_distance", squared_distance)
    monkeypatch.setitem(selection.SELECTIONS, "everything", everything)
    config = short()
    config.data.task, config.data.num_train, config.data.num_evaluation = "toy", 80, 10
    config.draft.divergence, config.draft.selection = "squared_distance", "everything"
    for stage in (config.target, config.draft):
        stage.architecture.model_type = "toy"
    report = pipeline.run(config, tmp_path / "run")
    assert report["task"] == "toy" and report["drafts"]["draft"]["judged"] > 0
    assert all(line["share_kept"] == 1 for line in read_metrics(tmp_path / "run" / "draft" / "metrics.jsonl"))
    assert json.loads((tmp_path / "run" / "draft" / "config.json").read_text())["model_type"] == "toy"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("divergence", "forward_lk", 'no divergence "forward_lk"; did you mean "forward_kl"'),
        ("selection", "topp", 'no selection "topp"; did you mean "top"'),
    ],
)
def test_a_name_in_no_table_is_refused_before_anything_is_made(tmp_path, key, value, complaint):
    config = short(draft=Draft(**{key: value}))
    with pytest.raises(UserError, match=complaint):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
