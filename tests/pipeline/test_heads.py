"""Heads on the target's features in a run: stages, store, resumption and report are those of any draft."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest

from adaspec_jax import methods, models, pipeline
from adaspec_jax.config import Answers, Draft, GPTNeoX, Llama, Llama3Rope, validate, with_cut
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.pipeline import beginnings, whole_run
from adaspec_jax.pipeline.heads import HeadAsked
from adaspec_jax.pipeline.teacher_features import column_of
from adaspec_jax.reporting import read_metrics
from tests.pipeline.test_arms import short
from tests.pipeline.test_qualifier import between
from tests.running import command_line, slow

STAGES = ("reference", "draft")


def with_head(kind="eagle3", head="steps=2,vocabulary=200", **changes):
    config = short(**changes)
    config.draft = Draft(kind=kind, head=head, epochs=0.4, batch_size=8, lr=5e-3)
    return config


def stage_of(config, name, **changes):
    return dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **changes)})


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
    store, given = tmp_path / "new" / "store", {"teacher_store": str(tmp_path / "new" / "store")}

    def files():
        return {file: file.stat().st_mtime_ns for file in store.glob("*.npy")}

    def columns(found):
        return {file.name.rpartition("-")[0] for file in found}

    pipeline.run(with_head("medusa", "heads=2", **given), on_its_target("medusa"))
    kept = files()
    assert columns(kept) == {column_of(-1)}
    report = pipeline.run(with_head("hydra", "heads=2,hard=false", **given), on_its_target("hydra"))
    assert files() == kept
    assert report["drafts"]["draft"]["judged"] > 0 and report["speed"]["draft_length"] == 2
    directory = on_its_target("eagle3")
    pipeline.run(with_head(**given), directory)
    assert columns(files()) == {column_of(-1), column_of(0)} and kept.items() <= files().items()
    for stage in STAGES:
        ours, theirs = (read_metrics(path / stage / "metrics.jsonl") for path in (directory, finished[0]))
        for a, b in zip(ours, theirs, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)


@pytest.mark.parametrize("kind", ["medusa", slow("eagle3")])
def test_a_model_between_reads_what_is_stored_for_heads(on_its_target, kind):
    found, head = {}, "heads=2" if kind == "medusa" else "steps=1,vocabulary=200"
    for choice in ("hidden", "recompute"):
        directory = on_its_target(choice)
        config = with_head(kind, head, teacher=choice)
        pipeline.run(between(config, architecture=short().draft.architecture), directory)
        found[choice] = [line["loss"] for line in read_metrics(directory / "qualifier" / "metrics.jsonl")]
    np.testing.assert_allclose(found["hidden"], found["recompute"], rtol=2e-3)


def test_heads_are_trained_with_the_runs_attention(on_its_target, monkeypatch):
    begun = []

    def fit_stage(stage, model, *_, **__):
        begun.append(model)
        raise Stopped("as far as its head")

    monkeypatch.setattr(whole_run, "fit_stage", fit_stage)
    with pytest.raises(Stopped):
        pipeline.run(with_head("eagle", ""), on_its_target("run"))
    assert begun[0].config.attention_block == 64


def test_auto_may_be_told_of_a_store_that_is_not_there_yet(on_its_target, tmp_path, capsys):
    config = with_head("medusa", "heads=2", teacher="auto", teacher_store=str(tmp_path / "new" / "store"))
    report = pipeline.run(config, on_its_target("auto"))
    stored = report["teacher"]["choice"] == "hidden"
    assert any((tmp_path / "new" / "store").iterdir()) == stored
    assert stored or "store is left as it is" in report["teacher"]["why"]


def test_a_place_that_no_store_can_be_in_is_said_before_anything_is_done(tmp_path):
    (tmp_path / "file").write_text("")
    config = with_head(teacher_store=str(tmp_path / "file" / "store"))
    with pytest.raises(UserError, match="config.teacher_store .*store cannot be written to: Not a directory"):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "target").exists()


def test_stored_hidden_states_may_be_rounded(on_its_target, tmp_path):
    found, losses = {}, {}
    for dtype in ("computed", "bfloat16"):
        directory, store = on_its_target(dtype), tmp_path / f"store_{dtype}"
        pipeline.run(with_head("eagle", "noise=0", teacher_store=str(store), teacher_dtype=dtype), directory)
        [file] = store.glob("*.npy")
        found[dtype] = np.load(file)
        losses[dtype] = [line["loss"] for line in read_metrics(directory / "draft" / "metrics.jsonl")]
    rounded = found["computed"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found["bfloat16"].view(ml_dtypes.bfloat16), rounded)
    np.testing.assert_allclose(losses["bfloat16"], losses["computed"], rtol=2e-2)
    assert losses["bfloat16"] != losses["computed"]


@pytest.mark.slow
def test_a_target_may_be_tuned_to_exit_early(few_costs, tmp_path):
    """Then it is another target, for which its first layers draft better; what is drafted for is the tuned one."""
    config = with_head("kangaroo", "exit_layer=1")
    config.target.architecture.num_hidden_layers = 3
    config.target.early_exit = "p_max=0.2,curriculum=all"
    report = pipeline.run(config, tmp_path / "run")
    assert report["settings"]["target"]["early_exit"] == config.target.early_exit
    lines = read_metrics(tmp_path / "run" / "target" / "metrics.jsonl")
    assert lines[-1]["exits"] == 3 and lines[-1]["last_loss"] < lines[0]["last_loss"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["hidden", "recompute"])
def test_an_adapter_is_trained_on_the_targets_first_layers_and_decoded(few_costs, tmp_path, teacher):
    config = with_head("kangaroo", "exit_layer=1", teacher=teacher)
    config.target.architecture.num_hidden_layers = 3
    report = pipeline.run(config, tmp_path / "run")
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]
    assert methods.method_for([str(tmp_path / "run" / "draft")]) == "kangaroo_chain"
    line = read_metrics(tmp_path / "run" / "draft" / "metrics.jsonl")[-1]
    assert 0.3 < line["share_kept"] < 0.6 and 0 < line["acceptance"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "head", "teacher"), [("falcon", "linear=true", "hidden"), ("pass", "slots=3", "auto")]
)
def test_kinds_that_are_trained_in_their_own_way_are_trained_and_decoded(few_costs, tmp_path, kind, head, teacher):
    report = pipeline.run(with_head(kind, head, teacher=teacher), tmp_path / "run")
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]
    line = read_metrics(tmp_path / "run" / "draft" / "metrics.jsonl")[-1]
    assert 0.3 < line["share_kept"] < 0.6 and 0 < line["acceptance"] < 1
    assert (tmp_path / "run" / "teacher").exists() == (kind == "falcon")


@pytest.mark.parametrize(("kind", "head"), [("eagle3", "steps=2,vocabulary=200"), slow("hydra_plus", "heads=2")])
def test_a_run_in_bfloat16_decodes_its_heads(tmp_path, kind, head):
    report = pipeline.run(with_head(kind, head, dtype="bfloat16"), tmp_path / "run")
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["drafts"]["draft"]["judged"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "axis"), [("eagle3", "data"), ("medusa", "data"), ("hydra_plus", "data"), ("eagle3", "fsdp")]
)
def test_devices_change_nothing(finished, on_its_target, kind, axis):
    head = "steps=2,vocabulary=200" if kind == "eagle3" else "heads=2"
    reports = {}
    for count in (1, 4):
        config = with_head(kind, head)
        setattr(config.mesh, axis, count)
        reports[count] = pipeline.run(config, on_its_target(f"{kind}_{count}"))
    for label in ("reference", "draft"):
        one, four = (reports[count]["drafts"][label]["expected_alpha"] for count in (1, 4))
        assert one == pytest.approx(four, abs=2e-3)


def test_mistakes_are_said_before_anything_is_done(tmp_path):
    mistakes = {
        "no kind": (with_head("eagel"), r'kind "eagel" are not known here; did you mean "eagle"'),
        "no knob": (with_head(head="step=2"), r'has no knob "step"; did you mean "steps"'),
        "no number": (with_head(head="steps=x"), r'eagle3.steps is "x"; give such as 7'),
        "no steps": (with_head(head="steps=0"), r"steps is 0; it must be at least 1"),
        "too many steps": (with_head(head="steps=5000"), r"steps is 5000; .* below the target's context of 2048"),
        "twice": (with_head(head="steps=2,steps=3"), r'config.draft.head "steps=2,steps=3" gives steps twice'),
        "no loss": (with_head("eagle", "laws=0,features=0"), r"laws and features are 0: there is nothing to learn"),
        "no weight": (with_head("eagle", "laws=-1"), r"laws is -1.0; it must be a number from 0 on"),
        "no width": (with_head("eagle", "noise=-1"), r"noise is -1.0; it must be a number from 0 on"),
        "no such layer": (with_head(head="taps=0-7"), r"taps has 7; the target has layers 0 to"),
        "too many tokens": (with_head(head="vocabulary=999"), r"vocabulary is 999; the target has 320 tokens"),
        "not spelt": (with_head(head="steps"), r'config.draft.head is "steps"; give KNOB=VALUE'),
        "hard": (
            stage_of(with_head("medusa", ""), "draft", divergence="reverse_kl"),
            r"draft.divergence is .*hard=false",
        ),
        "reference": (
            stage_of(with_head("hydra", ""), "reference", divergence="reverse_kl"),
            r"reference.divergence is",
        ),
        "masks": (
            stage_of(with_head(), "draft", masks="laws"),
            r'draft.masks is "laws", and the loss .*"eagle3" has no',
        ),
        "recompute": (
            with_head(teacher="recompute", teacher_store="x"),
            r'teacher_store is "x", and .* stores nothing',
        ),
        "type": (with_head(teacher="recompute", teacher_dtype="bfloat16"), r"teacher_dtype is .* stores nothing"),
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
    masking = stage_of(short(), "draft", masks="laws")
    rounding = short(teacher="top_k", teacher_dtype="bfloat16")
    sampling = short(teacher_store="x", answers=Answers("draft"))
    for config, said in {
        r'draft.masks "laws" is for a head, and draft.kind is "model"': masking,
        r"teacher_dtype is .*which is of stored hidden states": rounding,
        r'teacher_store is "x", and nothing can be stored of answers.source "draft"': sampling,
        r'answers.source "draft" samples from a draft that is a model': on_policy,
        r"a head begins at random": begun,
        r'draft.head "steps=2" is for a head, and draft.kind is "model"': idle,
    }.items():
        with pytest.raises(UserError, match=config):
            validate(said)


@pytest.mark.parametrize("count", [310, 320])
def test_a_vocabulary_of_more_tokens_than_there_are_is_refused_before_anything_is_done(tmp_path, count):
    config = with_head(head=f"vocabulary={count}")
    config.tokenizer.vocab_size = 300
    with pytest.raises(UserError, match=f"vocabulary is {count}; the target has 30. tokens"):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "target").exists()


@pytest.mark.parametrize("kind", ["eagle", "hydra_plus"])
def test_a_target_whose_attention_heads_no_layer_can_turn_is_refused_before_anything_is_done(tmp_path, kind):
    config = with_head(kind, "")
    sizes = {"hidden_size": 45, "num_attention_heads": 3, "intermediate_size": 96, "rotary_pct": 0.4}
    config.target.architecture = GPTNeoX(vocab_size=320, num_hidden_layers=1, **sizes)
    assert config.target.architecture.mistake() is None
    with pytest.raises(UserError, match=f'a head of the kind "{kind}": rotary size 15 must be even'):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "target").exists()


def test_an_own_vocabulary_is_that_of_the_text_that_is_trained_on(on_its_target, monkeypatch):
    answered, sample = [], whole_run.answers.targets_own
    monkeypatch.setattr(
        whole_run.answers, "targets_own", lambda *given, **how: answered.append(sample(*given, **how)) or answered[-1]
    )
    directory, config = on_its_target("answered"), with_head(head="steps=1,vocabulary=40")
    config.answers = Answers("target", temperature=1.0, max_new_tokens=16)
    pipeline.run(config, directory)
    head = models.load_head(directory / "draft", models.load(directory / "target").with_vocabulary(320))
    [text] = answered
    counts_V = np.bincount(np.concatenate([row.tokens[row.labels_T] for row in text.train]), minlength=320)
    assert head.tables["kept"].tolist() == sorted(np.argsort(-counts_V, kind="stable")[:40])


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


def test_a_head_begins_with_the_layers_of_the_finished_target_before_it(tmp_path):
    hf = {"model_type": "llama", "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    target = models.build(hf | {"num_attention_heads": 4, "num_key_value_heads": 2}, jax.random.key(0))
    models.save(target, tmp_path / "target")
    start = SimpleNamespace(
        workdir=SimpleNamespace(stage=lambda name: tmp_path / name),
        demands=SimpleNamespace(vocabulary=24, attention="xla", dtype="float32"),
        head=HeadAsked("amphista", {"heads": 2}),
        text=SimpleNamespace(train=[]),
        stages={"draft": SimpleNamespace(seed=0)},
    )
    begun = beginnings.untrained_head(start).params["first"]
    jax.tree.map(np.testing.assert_array_equal, begun, dict(target.params["layers_1"]))
