"""Two processes with four devices each give the losses, choices and acceptance of one process with one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.running import CHECKOUT

TINY = {
    "data.num_train": 64,
    "data.buckets": "(256,)",
    "data.num_evaluation": 8,
    "evaluation.num_prompts": 8,
    "evaluation.max_new_tokens": 16,
    "evaluation.resamples": 100,
    "tokenizer.vocab_size": 400,
    "target.architecture.vocab_size": 400,
    "target.architecture.hidden_size": 32,
    "target.architecture.num_hidden_layers": 2,
    "target.architecture.intermediate_size": 64,
    "draft.architecture.vocab_size": 400,
    "draft.architecture.hidden_size": 24,
    "draft.architecture.num_hidden_layers": 1,
    "draft.architecture.intermediate_size": 48,
    "draft.fraction": 0.5,
    "checkpoint_every": 2,
    "teacher": "recompute",
}


def start(workdir, *, processes=1, devices=1, process=0, port=0, cwd=CHECKOUT, **overrides):
    together = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(process),
    }
    overrides = TINY | {"distributed": "auto" if processes > 1 else "off"} | overrides
    return subprocess.Popen(
        [sys.executable, "-m", "adaspec_jax.train", "--config", f"{CHECKOUT / 'configs' / 'quickstart.py'}"]
        + ["--workdir", str(workdir)]
        + [f"--config.{key}={value}" for key, value in overrides.items()],
        cwd=cwd,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(CHECKOUT)}
        | (together if processes > 1 else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, differing=None, **overrides):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"processes": 2, "devices": 4, "port": port}
    return [start(workdir, process=i, **shared | overrides | (differing or {} if i else {})) for i in (0, 1)]


def finish(*running, timeout=300):
    """[(status, standard error)] of processes that end by themselves."""
    return [(one.wait(timeout), one.stderr.read()) for one in running]


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


def test_two_processes_of_four_devices_are_one_of_one_and_a_killed_one_ends_both(alone, tmp_path):
    workdir = tmp_path / "run"
    both = start_two(workdir, **{"target.epochs": 2.0})
    until = time.monotonic() + 200
    while not (workdir / "target" / "checkpoints" / "4").exists() and all(one.poll() is None for one in both):
        assert time.monotonic() < until
        time.sleep(0.05)
    both[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    [(status, said)] = finish(both[0], timeout=60)
    assert status not in (0, 2) and time.monotonic() - began < 60
    assert "start all of them again with the same command" in said
    assert both[1].wait() == -signal.SIGKILL
    both[1].stderr.close()
    assert not (workdir / "target" / "stage.json").exists()

    for status, said in finish(*start_two(workdir)):
        assert status == 0, said
    check_same(workdir, alone)


@pytest.mark.slow
def test_a_run_of_two_processes_is_finished_by_one_with_another_mesh(alone, tmp_path):
    workdir = tmp_path / "run"
    both = start_two(workdir)
    until = time.monotonic() + 200
    while not (workdir / "reference" / "checkpoints" / "2").exists() and all(one.poll() is None for one in both):
        assert time.monotonic() < until
        time.sleep(0.05)
    for one in both:
        one.kill()
    finish(*both)
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
        ({"target.lr": 1e-4}, "its config differs from that of process 0: target.lr is 0.0001, not 0.003"),
        ({"data.train": "absent.jsonl"}, "its config differs from that of process 0: data.train"),
    ],
)
def test_processes_that_disagree_end_with_one_line_before_anything_is_made(tmp_path, differing, complaint):
    for status, said in finish(*start_two(tmp_path / "run", differing), timeout=120):
        assert status == 2 and said.count("error:") == 1, said
        assert f"process 1: {complaint}" in said
    assert not (tmp_path / "run").exists()


def test_outside_training_a_signal_ends_the_run_as_ever(tmp_path):
    """While held-out prompts are decoded there is no step to save, and nothing to wait for."""
    workdir = tmp_path / "run"
    many = {"data.num_evaluation": 2000, "evaluation.num_prompts": 2000, "evaluation.max_new_tokens": 64}
    running = start(workdir, **many)
    until = time.monotonic() + 200
    while not (workdir / "draft" / "stage.json").exists() and running.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    [(status, _)] = finish(running, timeout=20)
    assert status == -signal.SIGTERM and not (workdir / "report.json").exists()


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
    for status, said in finish(*both, timeout=120):
        assert status == 2 and said.count("error:") == 1, said
        assert "process 1: its data differs from that of process 0: train is" in said


def test_a_process_that_finds_no_run_to_join_says_what_it_needs(tmp_path):
    one = start(tmp_path / "run", distributed="auto")
    [(status, said)] = finish(one, timeout=60)
    assert status == 2 and "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID" in said, said


def test_a_run_told_to_stop_saves_its_step_and_ends_with_the_same_losses(alone, tmp_path):
    workdir = tmp_path / "run"
    running = start(workdir, checkpoint_every=1000)
    until = time.monotonic() + 200
    file = workdir / "target" / "metrics.jsonl"
    while not file.exists() and running.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    [(status, said)] = finish(running)
    assert status == 143 and "which is saved; the same command goes on from there" in said, said
    [saved] = [int(step.name) for step in (workdir / "target" / "checkpoints").iterdir()]
    assert 1 <= saved < 8
    [(status, said)] = finish(start(workdir, checkpoint_every=1000))
    assert status == 0, said
    check_same(workdir, alone, rtol=0)
