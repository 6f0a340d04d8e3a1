"""Two processes with two devices each give the losses, choices and acceptance of one process with one device."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.running import CHECKOUT, PATIENCE, slow

TINY = {
    "data.num_train": 64,
    "data.buckets": "(256,)",
    "data.num_evaluation": 8,
    "evaluation.num_prompts": 8,
    "evaluation.max_new_tokens": 16,
    "evaluation.draft_length": 2,
    "evaluation.resamples": 100,
    "tokenizer.vocab_size": 400,
    "target.architecture.vocab_size": 400,
    "target.architecture.hidden_size": 32,
    "target.architecture.num_hidden_layers": 1,
    "target.architecture.intermediate_size": 64,
    "draft.architecture.vocab_size": 400,
    "draft.architecture.hidden_size": 24,
    "draft.architecture.num_attention_heads": 3,
    "draft.architecture.num_hidden_layers": 1,
    "draft.architecture.intermediate_size": 48,
    "draft.fraction": 0.5,
    "checkpoint_every": 2,
    "teacher": "recompute",
}

# The quickstart, with the costs of a few guesses alone (tests/pipeline/ measures all), where a process that is told so
# sends itself a signal: at a step of a stage, or when drafts are measured. Whoever waited for a file to appear would
# send it at another moment on a busy machine.
CONFIG = """
import os, signal
from importlib import import_module
from pathlib import Path
from adaspec_jax.devices import processes
from adaspec_jax.pipeline import report
from configs.quickstart import get_config

name, place, step = os.environ.get("SIGNAL_AT", "SIGTERM nowhere 0").split()
if not hasattr(processes, "before"):  # a config file is read more than once
    processes.before = processes.stopping, report.measure
real_stopping, real_measure = processes.before

def stopping(at):
    if at == int(step) and Path(place, "metrics.jsonl").exists():
        signal.raise_signal(signal.Signals[name])
    return real_stopping(at)

def measure(*args, **kwargs):
    if place == "measuring":
        signal.raise_signal(signal.Signals[name])
    return real_measure(*args, **kwargs)

processes.stopping, report.measure = stopping, measure
import_module("adaspec_jax.measuring.measure").LONGEST = 2
"""


def start(workdir, *, processes=1, devices=1, process=0, port=0, cwd=CHECKOUT, signal_at=None, **overrides):
    together = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(process),
    }
    overrides = TINY | {"distributed": "auto" if processes > 1 else "off"} | overrides
    config = workdir.parent / "config.py"
    config.write_text(CONFIG)
    return subprocess.Popen(
        [sys.executable, "-m", "adaspec_jax.train", "--config", str(config)]
        + ["--workdir", str(workdir)]
        + [f"--config.{key}={value}" for key, value in overrides.items()],
        cwd=cwd,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(CHECKOUT)}
        | (together if processes > 1 else {})
        | ({"SIGNAL_AT": signal_at} if signal_at else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, differing=None, **overrides):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"processes": 2, "devices": 2, "port": port}
    return [start(workdir, process=i, **shared | overrides | (differing or {} if i else {})) for i in (0, 1)]


def finish(*running):
    """[(status, standard error)] of processes that end by themselves."""
    return [(one.wait(PATIENCE), one.stderr.read()) for one in running]


def lines(workdir, stage):
    return [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]


def accepted(workdir):
    drafts = json.loads((workdir / "report.json").read_text())["drafts"]
    return {name: (draft["accepted"], draft["judged"]) for name, draft in drafts.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    [(status, said)] = finish(start(workdir))
    assert status == 0, said
    return workdir


def check_same(workdir, alone, rtol=1e-5):
    for stage in ("target", "reference", "draft"):
        ours, theirs = lines(workdir, stage), lines(alone, stage)
        # Rounding may put a token of a thousand on the other side of the draft's threshold, as with jax 0.7.2.
        allowed = {"rtol": 5e-4 if rtol and stage == "draft" else rtol, "err_msg": stage}
        np.testing.assert_allclose([m["loss"] for m in ours], [m["loss"] for m in theirs], **allowed)
        kept = [[m["share_kept"] for m in side if "share_kept" in m] for side in (ours, theirs)]
        np.testing.assert_allclose(*kept, atol=2e-3 if rtol else 0, rtol=0)
        assert (stage == "draft") == bool(kept[0])
    assert accepted(workdir) == accepted(alone)


def test_two_processes_of_two_devices_are_one_of_one(alone, tmp_path):
    for status, said in finish(*start_two(tmp_path / "run")):
        assert status == 0, said
    check_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_both_go_on(alone, tmp_path):
    workdir = tmp_path / "run"
    both = start_two(workdir, {"signal_at": f"SIGKILL {workdir / 'target'} 6"})
    (status, said), (killed, _) = finish(*both)
    assert killed == -signal.SIGKILL and status not in (0, 2)
    assert "start all of them again with the same command" in said
    assert (workdir / "target" / "checkpoints" / "2").exists()  # the next one may still have been under way
    assert not (workdir / "target" / "stage.json").exists()

    for status, said in finish(*start_two(workdir)):
        assert status == 0, said
    check_same(workdir, alone)


@pytest.mark.slow
def test_a_run_of_two_processes_is_finished_by_one_with_another_mesh(alone, tmp_path):
    workdir = tmp_path / "run"
    both = start_two(workdir, signal_at=f"SIGKILL {workdir / 'reference'} 6")
    assert -signal.SIGKILL in [status for status, _ in finish(*both)]
    assert (workdir / "reference" / "checkpoints" / "2").exists()
    [(status, said)] = finish(
        start(workdir, devices=8, **{"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "mesh.draft": "replicated"})
    )
    assert status == 0, said
    check_same(workdir, alone)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["target", "draft", "mixed"])
def test_two_processes_sample_the_answers_that_one_does(tmp_path, source):
    sampled = {
        "data.buckets": "(144,176,256)",
        "answers.source": source,
        "answers.temperature": 1.0,
        "answers.max_new_tokens": 12,
    }
    [(status, said)] = finish(start(tmp_path / "alone", **sampled))
    assert status == 0, said
    for status, said in finish(*start_two(tmp_path / "run", **sampled)):
        assert status == 0, said
    check_same(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(
    "differing, complaint",
    [
        slow({"target.lr": 1e-4}, "target.lr is 0.0001, not 0.003"),
        ({"data.train": "absent.jsonl"}, 'data.train is "absent.jsonl", not null'),
    ],
)
def test_processes_that_disagree_end_with_one_line_before_anything_is_made(tmp_path, differing, complaint):
    for status, said in finish(*start_two(tmp_path / "run", differing)):
        assert status == 2 and said.count("error:") == 1, said
        assert f"process 1: its config differs from that of process 0: {complaint}" in said
    assert not (tmp_path / "run").exists()


def before_the_draft(alone, workdir):
    """A copy of the run as it was when its target and reference were trained."""
    shutil.copytree(alone, workdir)
    shutil.rmtree(workdir / "draft")
    (workdir / "report.json").unlink()
    return workdir


def test_outside_training_a_signal_ends_the_run_as_ever(alone, tmp_path):
    """While held-out prompts are decoded there is no step to save, and nothing to wait for."""
    workdir = before_the_draft(alone, tmp_path / "run")
    [(status, _)] = finish(start(workdir, signal_at="SIGTERM measuring 0"))
    assert status == -signal.SIGTERM and (workdir / "draft" / "stage.json").exists()
    assert not (workdir / "report.json").exists()


def test_processes_with_other_data_under_the_same_name_end_with_one_line(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, answer in zip(folders, ("four", "five"), strict=True):
        folder.mkdir()
        for name, numbers in (("train", range(64)), ("held_out", range(64, 128))):
            rows = [json.dumps({"q": f"What is {n} and two? ", "a": answer}) for n in numbers]
            (folder / f"{name}.jsonl").write_text("\n".join(rows))
    columns = {"data.prompt_column": "q", "data.answer_column": "a", "tokenizer.vocab_size": 280}
    files = {"data.train": "train.jsonl", "data.evaluation": "held_out.jsonl"}
    both = start_two(tmp_path / "run", {"cwd": folders[1]}, **columns, **files, cwd=folders[0])
    for status, said in finish(*both):
        assert status == 2 and said.count("error:") == 1, said
        assert "process 1: its data differs from that of process 0: train is" in said


def test_a_process_that_finds_no_run_to_join_says_what_it_needs(tmp_path):
    [(status, said)] = finish(start(tmp_path / "run", distributed="auto"))
    assert status == 2 and "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID" in said, said


def test_a_run_told_to_stop_saves_its_step_and_ends_with_the_same_losses(alone, tmp_path):
    workdir = before_the_draft(alone, tmp_path / "run")
    [(status, said)] = finish(start(workdir, checkpoint_every=1000, signal_at=f"SIGTERM {workdir / 'draft'} 3"))
    ends = r"which is saved, \d+\.\d s after it; the same command goes on from there"
    assert status == 143 and re.search(ends, said), said
    assert re.search(r"finished and saved first; steps took up to \d+\.\d s so far", said), said
    assert (workdir / "draft" / "checkpoints" / "3").is_dir()
    [(status, said)] = finish(start(workdir, checkpoint_every=1000))
    assert status == 0, said
    check_same(workdir, alone, rtol=0)
