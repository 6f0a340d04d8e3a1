"""A run's directory has one holder at a time, and a lock that is gone with its process."""

import os
import signal
import subprocess
import sys

import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import holder
from adaspec_jax.pipeline.holder import LOCK, held
from tests.running import CHECKOUT

HOLDING = """
import sys, time
from pathlib import Path
from adaspec_jax.pipeline.holder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
COMING = """
import sys, time
from pathlib import Path
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.holder import held
directory = Path(sys.argv[1])
for _ in range(40):
    try:
        with held(directory):
            (directory / "in").touch(exist_ok=False)  # an error where another is in
            time.sleep(0.02)
            (directory / "in").unlink()
    except UserError:
        time.sleep(0.005)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_who_is_there_and_the_first_is_left_alone(other, tmp_path):
    with pytest.raises(
        UserError, match=f"{tmp_path} is in use by process {other.pid} of .*: wait until that run ends, or"
    ):
        with held(tmp_path):
            raise AssertionError
    assert other.poll() is None and (tmp_path / LOCK).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_is_gone_with_its_process(other, tmp_path, number):
    os.kill(other.pid, number)
    other.wait()
    with held(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} of ")
    assert not list(tmp_path.iterdir())  # and nothing is left over


def test_many_that_come_and_go_are_never_two(tmp_path):
    several = [subprocess.Popen([sys.executable, "-c", COMING, tmp_path / "run"], cwd=CHECKOUT) for _ in range(4)]
    assert [process.wait() for process in several] == [0] * 4
    assert not list((tmp_path / "run").iterdir())


def test_where_there_are_no_locks_that_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(holder.fcntl, "flock", none)
    with held(tmp_path):
        pass
    assert "its file system has no locks" in capsys.readouterr().out


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir .*file cannot be made: File exists"), held(tmp_path / "file"):
        pass
