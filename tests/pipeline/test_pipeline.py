"""The whole pipeline at toy size: restored, resumed to the bit, measured as brute force would, exported."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from adaspec_jax import data, models, pipeline, reporting
from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Mesh, Reference, Target, Tokenizer
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate
from adaspec_jax.devices import sharding
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.measuring import Contender, measure
from adaspec_jax.pipeline import report, seeds, whole_run
from adaspec_jax.pipeline.stage_log import StageLog
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.reporting import read_metrics, summarize
from tests.running import CHECKOUT, command_line, slow

FEW = {"num_prompts": 4, "max_new_tokens": 8, "resamples": 50, "draft_length": 2, "batch_size": 4}
SIZES = {"vocab_size": 320, "num_hidden_layers": 1, "initializer_range": 0.1}

CONFIG = """
import os, signal, sys
sys.path.insert(0, {checkout!r})
from adaspec_jax.devices import processes
from tests.pipeline.test_pipeline import experiment
if step := int(os.environ.get("KILLED_AT", 0)):
    processes.stopping = lambda at: at == step and os.kill(os.getpid(), signal.SIGKILL)
def get_config(variant=""):
    return experiment()
"""


def experiment():
    fit = {"batch_size": 8, "lr": 5e-3}
    target = GPTNeoX(hidden_size=48, num_attention_heads=3, intermediate_size=96, **SIZES)
    draft = GPTNeoX(hidden_size=16, num_attention_heads=2, intermediate_size=32, **SIZES)
    return Experiment(
        data=Data(
            task="word_problems", num_train=64, num_evaluation=8, max_length=256, buckets=(256,), length_window=2
        ),
        tokenizer=Tokenizer(init="train", vocab_size=320),
        target=Target(architecture=target, epochs=8, **fit),
        reference=Reference(epochs=6, **fit),
        draft=Draft(architecture=draft, epochs=3, **fit),
        evaluation=Evaluation(num_prompts=8, batch_size=4, draft_length=3, max_new_tokens=40, resamples=500),
        mesh=Mesh(data=1),
        checkpoint_every=5,
        teacher="hidden",  # "auto" goes by the clock
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pipeline") / "run"
    return directory, pipeline.run(experiment(), directory)


@pytest.fixture(scope="module")
def pair(finished):
    tokenizer = data.load_tokenizer(finished[0] / "tokenizer")
    return tuple(models.load(finished[0] / s).with_vocabulary(len(tokenizer)) for s in ("target", "draft")), tokenizer


@pytest.fixture(scope="module")
def prompts(pair):
    examples = data.load_examples("word_problems", "test", num=8)
    encoded, _ = data.encode(examples, pair[1], max_length=256, eos_id=0)
    return next(data.prompt_batches(encoded, 8, buckets=(128, 256)))


def test_the_report_has_every_field_of_the_contract(finished):
    directory, report = finished
    assert json.loads((directory / "report.json").read_text()) == report
    assert set(report) >= {"task", "settings", "environment", "drafts", "paired", "speed"}
    fields = (
        "alpha ci95 accepted judged drafted block_efficiency expected_alpha teacher_forced_agreement rounds prompts"
    )
    for name in ("base", "reference", "draft"):
        entry = report["drafts"][name]
        assert set(entry) >= set(fields.split())
        assert entry["alpha"] == entry["accepted"] / entry["judged"] and entry["prompts"] == 8
        assert report["speed"][name]["identical_to_plain"] == 8
    assert set(report["paired"]["draft-reference"]) == {"difference", "ci95", "p_value"}
    page = (directory / "report.html").read_text()
    assert "AdaSPEC" in page and "http" not in page.replace("http-equiv", "")


def test_stages_are_hugging_face_directories_with_metrics(finished):
    steps = {"target": 64, "reference": 48, "draft": 24}
    for name, count in steps.items():
        lines = [json.loads(line) for line in (finished[0] / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, count + 1))
        assert {"loss", "grad_norm", "tokens", "tokens_per_second"} <= set(lines[0])
        assert lines[-1]["loss"] < lines[0]["loss"]
        assert not (finished[0] / name / "checkpoints").exists()
    assert {"kl_kept", "kl_dropped", "share_kept", "gap"} <= set(lines[0])
    assert all(0.399 <= line["share_kept"] < 0.41 for line in lines)


def test_a_second_run_finds_everything_finished(finished, monkeypatch):
    monkeypatch.setattr(whole_run, "begin", None)  # nothing may be computed
    assert pipeline.run(experiment(), finished[0]) == finished[1]


def test_another_measurement_keeps_the_stages(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "run")
    monkeypatch.setattr(whole_run, "fit_stage", None)
    config = experiment()
    config.evaluation.draft_length = 0
    report = pipeline.run(config, tmp_path / "run")
    costs = report["speed"]["draft"]
    assert report["speed"]["draft_length"] == (costs["best_draft_length"] or 1)
    assert costs["promised_speedup_at_best"] >= costs["promised_speedup"] or costs["best_draft_length"] == 0
    assert set(report["costs_in_seconds"]["draft_step"]) == {"base", "reference", "draft"}
    said = "no draft length is faster", f"the best draft length is {costs['best_draft_length']} "
    assert said[costs["best_draft_length"] > 0] in reporting.table(report)
    config.evaluation.draft_length = 2
    report = pipeline.run(config, tmp_path / "run")
    assert report["settings"]["evaluation"]["draft_length"] == report["speed"]["draft_length"] == 2
    assert report["drafts"]["draft"]["teacher_forced_agreement"] == pytest.approx(
        finished[1]["drafts"]["draft"]["teacher_forced_agreement"]
    )


def test_too_little_memory_for_measuring_keeps_the_stages_and_names_the_key(finished, tmp_path, monkeypatch):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nmore")

    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    monkeypatch.setattr(report, "measure", full)
    with pytest.raises(UserError, match="measuring the drafts needs more memory .* lower config.evaluation.batch_size"):
        pipeline.run(experiment(), tmp_path / "run")
    assert all(map(Workdir(tmp_path / "run").finished, ("target", "reference", "draft")))


def test_a_signal_at_a_stages_last_step_ends_the_run_after_that_stage(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "run")
    for leftover in ("report.json", "draft"):
        path = tmp_path / "run" / leftover
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write, told = StageLog.write, []
    run = SimpleNamespace(log=lambda values, step: told.append(step), finish=lambda: told.append("finished"))
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **_: run))
    config = dataclasses.replace(experiment(), metrics="trackio", profile="draft:2-3")

    def signalled(self, step, values):
        write(self, step, values)
        if step == 24:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(StageLog, "write", signalled)
        with pytest.raises(Stopped, match="stopped by a signal after the draft stage, which is finished"):
            pipeline.run(config, tmp_path / "run")
    assert told == [*range(1, 25), "finished"] and [*(tmp_path / "run" / "draft" / "profile").rglob("*.xplane.pb")]
    assert (
        Workdir(tmp_path / "run").finished("draft")["steps"] == 24 and not (tmp_path / "run" / "report.json").exists()
    )
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "draft/config.json",
            "draft/config.json is damaged: it is not what the finished stage wrote; copy it back, or de",
        ),
        ("reference/metrics.jsonl", "reference/metrics.jsonl is damaged: it is not what the finished stage wrote"),
        ("target/stage.json", "target/stage.json is (damaged|not valid JSON)"),
        ("decisions.json", "decisions.json is (damaged|not valid JSON)"),
        ("config.json", "config.json is (damaged|not valid JSON)"),
        ("draft/model.safetensors", "draft/model.safetensors (is damaged: .* is not what was written|cannot be read)"),
    ],
)
@pytest.mark.parametrize("place", [0.4, 0.8])
def test_a_bit_that_changed_in_what_a_run_reads_back_is_named(finished, tmp_path, name, says, place):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()  # so that all is looked at again
    file = tmp_path / "run" / name
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 0x01
    file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        pipeline.run(experiment(), tmp_path / "run")


def test_a_report_that_changed_is_measured_anew(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "run")
    file = tmp_path / "run" / "report.json"
    file.write_text(file.read_text().replace('"rounds": ', '"rounds": 1', 1))
    measured = []
    monkeypatch.setattr(whole_run, "write_report", lambda *_, **__: measured.append(1))
    pipeline.run(experiment(), tmp_path / "run")
    assert measured == [1]


def test_a_workdir_of_another_config_is_refused_by_key(finished):
    config = experiment()
    config.draft.lr = 1e-3
    with pytest.raises(UserError, match="draft.lr=0.005, not 0.001"):
        pipeline.run(config, finished[0])


def test_killed_in_the_draft_stage_it_ends_with_the_same_parameters(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for leftover in ("draft", "report.json", "report.html"):
        path = workdir / leftover
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "config.py").write_text(CONFIG.format(checkout=str(CHECKOUT)))
    command = [sys.executable, "-m", "adaspec_jax.train", "--config", str(tmp_path / "config.py")]
    # Full precision and one device are what the uninterrupted run had under conftest.py.
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "JAX_NUM_CPU_DEVICES": "8"}
    run = {"cwd": CHECKOUT, "env": environment | {"KILLED_AT": "13"}, "stderr": subprocess.PIPE}
    killed = subprocess.run([*command, "--workdir", str(workdir)], stdout=subprocess.PIPE, **run)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (workdir / "draft" / "stage.json").exists()
    steps = [int(p.name) for p in (workdir / "draft" / "checkpoints").iterdir() if p.name.isdigit()]
    assert steps and max(steps) < 24
    pipeline.run(experiment(), workdir)  # that another process goes on alike: tests/devices/test_processes.py
    weights = [(d / "draft" / "model.safetensors").read_bytes() for d in (workdir, finished[0])]
    assert weights[0] == weights[1]
    metrics = [read_metrics(d / "draft" / "metrics.jsonl") for d in (workdir, finished[0])]
    assert all(entry.pop("tokens_per_second") > 0 for entries in metrics for entry in entries)
    assert all(sum(entry.pop("compile_seconds", 0) for entry in entries) > 0 for entries in metrics)
    assert metrics[0] == metrics[1]
    ours, theirs = (json.loads((d / "report.json").read_text())["drafts"] for d in (workdir, finished[0]))
    assert ours == theirs


def decode(target, drafter, prompts, rows=slice(None), **knobs):
    context = Context(prompts["tokens_BT"][rows], prompts["lengths_B"][rows])
    knobs = {"max_new_tokens": 40, "sampling": Sampling(temperature=0), "eos_id": 0} | knobs
    return jax.device_get(generate(target, drafter, context, jax.random.key(0), **knobs))


@pytest.mark.parametrize("length", [1, slow(2), 3, *map(slow, (4, 5, 6, 7)), 8])
def test_greedy_speculation_equals_plain_decoding_on_the_trained_pair(pair, prompts, length):
    (target, draft), _ = pair
    plain = decode(target, NoDraft(), prompts)
    ours = decode(target, ChainDrafter(draft, length=length), prompts)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert 0 < ours.accepted_BN.sum() < ours.judged_BN.sum()


def test_a_row_alone_and_the_target_as_its_own_draft_decode_alike(pair, prompts):
    (target, draft), _ = pair
    plain = decode(target, NoDraft(), prompts)
    for row in (0, 5):
        rows = slice(row, row + 1)
        alone = decode(target, ChainDrafter(draft, length=4), prompts, rows)
        np.testing.assert_array_equal(alone.tokens_BS, plain.tokens_BS[rows])
    own = decode(target, ChainDrafter(target, length=5), prompts)
    np.testing.assert_array_equal(own.accepted_BN, own.judged_BN)


def test_alpha_equals_a_brute_force_count_from_both_models_logits(pair, prompts):
    (target, draft), _ = pair
    length = 3
    ours = decode(target, ChainDrafter(draft, length=length), prompts)
    # A guess that is judged follows right ones only, which stand in the text: one pass over it gives every guess.
    choices = np.asarray(jax.jit(lambda m, t: m(t)[0].argmax(-1))(draft, ours.tokens_BS))
    accepted = judged = 0
    for row in range(8):
        text, at = ours.tokens_BS[row], int(prompts["lengths_B"][row])
        end = int(ours.lengths_B[row])
        while at < end:
            for _ in range(length + 1):
                if at == end or _ == length:
                    at += at < end
                    break
                judged += 1
                accepted += int(choices[row, at - 1] == text[at])
                at += 1
                if choices[row, at - 2] != text[at - 1]:
                    break
    assert (accepted, judged) == (ours.accepted_BN.sum(), ours.judged_BN.sum())


def test_eight_devices_decode_the_tokens_of_one(pair, prompts):
    (target, draft), _ = pair
    one = decode(target, ChainDrafter(draft, length=3), prompts)
    for shape in ((8, 1, 1), (2, 2, 2)):
        mesh = sharding.make_mesh(*shape)
        rows = {k: sharding.shard_rows(prompts[k], mesh) for k in ("tokens_BT", "lengths_B")}
        many = decode(sharding.shard(target, mesh), ChainDrafter(sharding.shard(draft, mesh), length=3), rows)
        np.testing.assert_array_equal(many.tokens_BS, one.tokens_BS)
        np.testing.assert_array_equal(many.accepted_BN, one.accepted_BN)


@pytest.mark.usefixtures("few_costs")
def test_evaluate_repeats_the_reports_measurement(finished, capsys, monkeypatch, tmp_path):
    stage = finished[0] / "target", finished[0] / "draft"
    knobs = "--num_prompts 8 --batch_size 4 --draft_length 3 --max_new_tokens 40 --max_length 256".split()
    arguments = ["--target", stage[0], "--draft", stage[1], "--task", "word_problems", *knobs]
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *arguments, "--json", tmp_path / "e.json")
    assert status == 0, errors
    ours, theirs = json.loads((tmp_path / "e.json").read_text())["drafts"]["draft"], finished[1]["drafts"]["draft"]
    for field in ("accepted", "judged", "drafted", "rounds", "prompts"):
        assert ours[field] == theirs[field], field


@pytest.mark.usefixtures("few_costs")
@pytest.mark.parametrize("leniences", [("1", "0.05"), slow(("1", "0.5", "0.05"))], ids=" ".join)
def test_lenience_accepts_more_and_is_said(finished, capsys, monkeypatch, tmp_path, leniences):
    stage = finished[0] / "target", finished[0] / "draft"
    knobs = "--num_prompts 8 --batch_size 4 --draft_length 3 --max_new_tokens 24 --max_length 256".split()
    arguments = ["--target", stage[0], "--draft", stage[1], "--task", "word_problems", *knobs, "--temperature", 1]
    alphas = {}
    for lenience in leniences:
        given = [*arguments, "--lenience", lenience, "--json", tmp_path / "e.json"]
        status, out, errors = command_line(capsys, monkeypatch, "evaluate", *given)
        assert status == 0, errors
        assert ("lossy" in out) == (lenience != "1")
        alphas[lenience] = json.loads((tmp_path / "e.json").read_text())["drafts"]["draft"]["alpha"]
    assert sorted(set(alphas.values())) == list(alphas.values())
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *given, "--lenience", 2)
    assert status == 2 and errors.count("\n") == 1 and "lenience" in errors


@pytest.mark.usefixtures("few_costs")
def test_evaluate_takes_a_file_of_prompts_without_a_task(finished, capsys, monkeypatch, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"q": "Tom has 3 apples.", "a": "He has 3."}\n')
    stage = finished[0] / "target", finished[0] / "draft"
    arguments = ["--target", stage[0], "--draft", stage[1], "--json", tmp_path / "e.json", "--max_new_tokens", 8]
    columns = ["--data", tmp_path / "p.jsonl", "--prompt_column", "q", "--answer_column", "a", "--batch_size", 1]
    columns += ["--repetition_penalty", 1.2]
    assert command_line(capsys, monkeypatch, "evaluate", *arguments, *columns)[0] == 0
    assert json.loads((tmp_path / "e.json").read_text())["drafts"]["draft"]["prompts"] == 1
    for mistake, says in (
        (["--data", tmp_path / "p.jsonl"], "--task"),
        ([*columns, "--temperature", -1], "temperature"),
        ([*columns, "--max_new_tokens", 2048], "the target has a context of 2048 tokens"),
    ):
        status, _, errors = command_line(capsys, monkeypatch, "evaluate", *arguments, *mistake)
        assert status == 2 and says in errors and errors.count("\n") == 1


def test_expected_alpha_and_agreement_equal_numpy_on_the_texts_they_are_defined_on(finished, pair, prompts):
    (target, draft), _ = pair
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seeds.evaluation(0)), 0), 1)
    rows = slice(0, 4)  # the run's first batch
    context = Context(prompts["tokens_BT"][rows], prompts["lengths_B"][rows])
    knobs = {"max_new_tokens": 40, "eos_id": 0}
    sampled = generate(target, NoDraft(), context, key, sampling=Sampling(), **knobs)
    greedy = generate(target, NoDraft(), context, key, sampling=Sampling(temperature=0), **knobs)
    batches = [{"tokens_BT": prompts["tokens_BT"][rows], "lengths_B": prompts["lengths_B"][rows], "valid": 4}]
    measured, _ = measure(
        target,
        {"draft": Contender(ChainDrafter(draft, length=3))},
        batches,
        max_new_tokens=40,
        sampling=Sampling(0.0),
        eos_id=0,
        seed=seeds.evaluation(0),
    )
    overlap, same = [], []
    for text, values in ((sampled, overlap), (greedy, same)):
        p, q = (np.asarray(jax.nn.softmax(m(text.tokens_BS)[0]), np.float64) for m in (target, draft))
        for row in range(4):
            for at in range(int(context.lengths_B[row]), int(text.lengths_B[row])):
                p_V, q_V = p[row, at - 1], q[row, at - 1]
                values.append(np.minimum(p_V, q_V).sum() if text is sampled else p_V.argmax() == q_V.argmax())
    summary = summarize(measured["draft"].counts, resamples=10)
    np.testing.assert_allclose(summary["expected_alpha"], np.mean(overlap), rtol=1e-5)
    np.testing.assert_allclose(summary["teacher_forced_agreement"], np.mean(same), rtol=1e-9)


def test_generate_prints_text_and_acceptance(finished, capsys, monkeypatch):
    stage = finished[0] / "target", finished[0] / "draft"
    shared = ["--target", stage[0], "--prompt", "Tom has 3 apples.", "--max_new_tokens", 12]
    _, plain, _ = command_line(capsys, monkeypatch, "generate", *shared)
    status, text, _ = command_line(capsys, monkeypatch, "generate", *shared, "--draft", stage[1])
    assert status == 0 and text.rpartition("[")[0] == plain.rpartition("[")[0] and text.startswith("Tom has 3 apples.")
    assert "target calls" in text and "acceptance" in text


def test_an_exported_stage_is_what_transformers_loads(finished, capsys, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = ["--workdir", finished[0], "--stage", "draft", "--out", tmp_path / "draft"]
    assert command_line(capsys, monkeypatch, "export", *arguments)[0] == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "draft")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "draft")
    tokens = tokenizer("Tom has 3 apples.", return_tensors="np")["input_ids"]
    ours, _ = models.load(finished[0] / "draft")(tokens)
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(torch.tensor(tokens)).logits.numpy(), atol=1e-4)
    settings = json.loads((tmp_path / "draft" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tmp_path / "draft" / "model.safetensors").stat().st_mode & 0o444 == 0o444
    status, _, errors = command_line(capsys, monkeypatch, "export", *arguments)
    assert status == 2 and "not an empty directory" in errors


def test_a_finished_target_is_used_as_it_is(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_run, "fit_stage", lambda stage, model, frozen, **shared: model)
    monkeypatch.setattr(whole_run, "write_report", lambda start, target, drafts, **shown: {"target": target})
    config = experiment()
    config.target.init, config.target.epochs = str(finished[0] / "target"), 0
    config.tokenizer.init = str(finished[0] / "tokenizer")
    for _ in range(2):  # the second time from its own directory
        used = pipeline.run(config, tmp_path / "run")["target"]
        jax.tree.map(np.testing.assert_array_equal, used.params, models.load(finished[0] / "target").params)
        assert (tmp_path / "run" / "target" / "model.safetensors").exists()


def test_a_mistake_that_is_mended_does_not_cost_the_workdir(finished, tmp_path, monkeypatch):
    config = experiment()
    config.data.train = str(tmp_path / "nowhere.jsonl")
    with pytest.raises(UserError, match="nowhere"):
        pipeline.run(config, tmp_path / "run")
    monkeypatch.setattr(whole_run, "begin", None)
    with pytest.raises(TypeError):  # past the claim
        pipeline.run(experiment(), tmp_path / "run")
    # Two finished stages stay when only the third, not begun yet, is to be done differently.
    shutil.copytree(finished[0], tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "draft")
    config = experiment()
    config.draft.lr = 1e-3
    Workdir(tmp_path / "other").claim(config)
    assert Workdir(tmp_path / "other").finished("reference")
    config.reference.lr = 1e-3
    with pytest.raises(UserError, match="delete .*reference"):
        Workdir(tmp_path / "other").claim(config)
    (tmp_path / "theirs" / "draft").mkdir(parents=True)
    with pytest.raises(UserError, match="no run of ours"):
        Workdir(tmp_path / "theirs").claim(experiment())


@pytest.mark.usefixtures("few_costs")
def test_a_tiny_data_set_and_two_columns_of_ones_own_get_their_report(tmp_path):
    for name, count in (("train", 3), ("held", 2)):
        lines = [json.dumps({"q": f"{name} {i}?", "a": f"It is {i}."}) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    config = experiment()
    config.data = Data(train=str(tmp_path / "train.jsonl"), evaluation=str(tmp_path / "held.jsonl"))
    config.data.prompt_column, config.data.answer_column = "q", "a"
    for stage in (config.target, config.reference, config.draft):
        stage.batch_size, stage.epochs = 2, 2
    config.evaluation.max_new_tokens = 5
    report = pipeline.run(config, tmp_path / "run")
    assert report["task"] == "columns" and report["drafts"]["draft"]["prompts"] == 2
    assert pipeline.run(config, tmp_path / "run") == report
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write(json.dumps({"q": "Another?", "a": "Yes."}) + "\n")
    with pytest.raises(UserError, match="examples have changed"):
        pipeline.run(config, tmp_path / "run")
    config.data.evaluation = None
    with pytest.raises(UserError, match="data.evaluation"):
        pipeline.run(config, tmp_path / "another")


@pytest.mark.usefixtures("few_costs")
def test_an_interrupted_stage_does_not_go_on_with_other_text(tmp_path, monkeypatch):
    file = tmp_path / "train.jsonl"
    lines = [json.dumps({"prompt": f"What is {i}?", "answer": f"It is {i}."}) for i in range(12)]
    file.write_text("\n".join(lines) + "\n")
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"prompt": "What is it?", "answer": "It is it."}) + "\n")
    columns = {"prompt_column": "prompt", "answer_column": "answer"}
    config = experiment()
    config.data = Data(train=str(file), evaluation=str(held), max_length=64, buckets=(64,), **columns)
    config.evaluation.max_new_tokens = 5
    with monkeypatch.context() as patched:
        patched.setattr(whole_run.processes, "stopping", lambda step: step == 2)
        with pytest.raises(Stopped, match="step 2 of"):
            pipeline.run(config, tmp_path / "run")
    file.write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(UserError, match="examples have changed .*target"):
        pipeline.run(config, tmp_path / "run")
    file.write_text("\n".join(lines) + "\n")
    assert pipeline.run(config, tmp_path / "run")["stages"]["target"]["steps"]


def test_a_non_finite_loss_stops_with_one_line_and_keeps_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("adaspec_jax.pipeline.arms.validate", lambda config: None)  # which refuses such a rate
    config = experiment()
    config.target.lr, config.target.clip_norm = 1e18, 0.0
    with pytest.raises(UserError, match="target stage's loss is .* at step"):
        pipeline.run(config, tmp_path / "run")
