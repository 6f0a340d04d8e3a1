"""A killed and resumed run leaves the same metrics file as an uninterrupted one."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.reporting import MetricsFile, read_metrics


def write_steps(path, start, stop, *, resume_at=0):
    with MetricsFile(path, resume_at=resume_at) as metrics:
        for step in range(start, stop + 1):
            metrics.write(step, loss=1 / step)


@pytest.mark.parametrize(
    "cut", ["nothing", "whole entry", "no newline", "half an entry", "garbage", "half a character", "zeros"]
)
def test_a_resumed_file_equals_an_uninterrupted_one_wherever_the_kill_fell(tmp_path, cut):
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    write_steps(whole, 1, 20)
    write_steps(resumed, 1, 10 if cut == "no newline" else 13)
    content = resumed.read_bytes()
    torn = {
        "nothing": content,
        "whole entry": content + b'{"step": 14, "loss": 0.1}\n',
        "no newline": content[:-1],
        "half an entry": content + b'{"step": 14, "lo',
        "garbage": content + b'{"st',
        "half a character": content + '{"step": 14, "ß'.encode()[:-1],
        "zeros": content + b"\x00" * 100,
    }[cut]
    resumed.write_bytes(torn)
    write_steps(resumed, 11, 20, resume_at=10)
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_process_killed_in_the_middle_loses_no_finished_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, signal\n"
        "from adaspec_jax.reporting import MetricsFile\n"
        f"metrics = MetricsFile({str(path)!r})\n"
        "for step in range(1, 8): metrics.write(step, loss=0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [entry["step"] for entry in read_metrics(path)] == list(range(1, 8))


def test_a_fresh_run_starts_an_empty_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    write_steps(path, 1, 5)
    write_steps(path, 1, 2)
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2]


def test_each_line_can_be_read_before_the_file_is_closed(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write(np.int64(3), loss=np.float32(0.5), tokens=np.int32(7), kl=np.array([1.0, 2.0]))
    assert read_metrics(metrics.path) == [{"step": 3, "loss": 0.5, "tokens": 7, "kl": [1.0, 2.0]}]
    metrics.close()


def test_a_diverged_loss_is_null_and_the_line_stays_strict_json(tmp_path):
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics:
        metrics.write(1, loss=float("nan"), kl=np.float32("inf"))
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss": None, "kl": None}


def test_reading_skips_a_torn_last_line_and_refuses_a_torn_middle(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


@pytest.mark.parametrize("spoil", [b'{"step": 2, "lo', b"", b'{"step": 3, "loss": 1.0}', b"\xff\xfe"])
def test_a_step_that_is_damaged_missing_or_there_twice_is_named(tmp_path, spoil):
    path = tmp_path / "draft" / "metrics.jsonl"
    path.parent.mkdir()
    lines = [b'{"step": %d, "loss": 1.0}' % step for step in range(1, 6)]
    lines[1] = spoil
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=f"{path} has no entry of step 2 where it belongs, and a checkpoint is at s"):
        MetricsFile(path, resume_at=4)
    path.write_bytes(b"\n".join([*lines[:1], b'{"step": 2}', b'{"step": 2}']) + b"\n")
    with pytest.raises(UserError, match="no entry of step 2 where it belongs"):
        MetricsFile(path, resume_at=2)  # there twice, at the end
    MetricsFile(path, resume_at=1).close()
    assert [entry["step"] for entry in read_metrics(path)] == [1]


def test_lines_that_a_checkpoint_knows_are_held_to_their_checksum(tmp_path):
    path = tmp_path / "draft" / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        for step in (1, 2):
            metrics.write(step, loss=0.125 * step)
        known = metrics.settle()
        metrics.write(3, loss=9.0)
    with MetricsFile(path, resume_at=2, checksum=known) as metrics:
        metrics.write(3, loss=0.5)
        later = metrics.settle()
    MetricsFile(path, resume_at=3, checksum=later).close()
    path.write_text(path.read_text().replace("0.25", "0.35"))
    for step, checksum in ((2, known), (3, later)):
        with pytest.raises(UserError, match=f"{path} is damaged: it is not what was there at step {step}"):
            MetricsFile(path, resume_at=step, checksum=checksum)
