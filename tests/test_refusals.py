"""What the system, a locale or a stranger's file refuses is one line and status 2, whichever library met it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adaspec_jax.errors import UserError, exit_with_one_line, refused_by_the_system
from adaspec_jax.files import open_unpacked, ordinary, parsed, read_json
from tests.running import CHECKOUT, PATIENCE

LIBRARYS = ValueError(
    'Error writing "/full/run/draft/3/state": RESOURCE_EXHAUSTED [OS error 28: ENOSPC No space left on device]'
)


def failing(error, cause=None):
    def main():
        raise error from cause

    return main


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (
            failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/file")),
            "/full/file: No space left on device; m",
        ),
        (
            failing(OSError(errno.EROFS, os.strerror(errno.EROFS), "/ro/file")),
            "/ro/file: Read-only file system; choose",
        ),
        (
            failing(OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "aaa")),
            "aaa: File name too long; choose a",
        ),
        (
            failing(PermissionError(errno.EACCES, "Permission denied", "/root/x")),
            "/root/x: Permission denied; choose a",
        ),
        (failing(LIBRARYS), "/full/run/draft/3/state: No space left on device; make room"),
        (failing(RuntimeError("the writer gave up"), LIBRARYS), "/full/run/draft/3/state: No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_line(main, says, capsys):
    with pytest.raises(SystemExit) as exit:
        exit_with_one_line(main)
    line = capsys.readouterr().err
    assert exit.value.code == 2 and line.startswith(f"error: {says}") and line.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("shape mismatch"), FileNotFoundError(errno.ENOENT, "gone", "x"), KeyError(28)]
)
def test_our_own_mistakes_keep_their_traceback(error):
    assert refused_by_the_system(error) is None
    with pytest.raises(type(error)):
        exit_with_one_line(failing(error))


def test_an_error_that_was_dealt_with_is_not_blamed():
    try:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "x")
        except PermissionError:
            raise ValueError("a mistake of ours") from None
    except ValueError as error:
        assert refused_by_the_system(error) is None


def command(module, *arguments, python=(), **how):
    program = [sys.executable, *python, "-m", f"adaspec_jax.{module}", *arguments]
    return subprocess.run(program, cwd=CHECKOUT, timeout=PATIENCE, stderr=subprocess.PIPE, text=True, **how)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_in_numpys_own_words_is_one():
    with pytest.raises(OSError) as error:
        np.arange(1e5).tofile("/dev/full")
    assert "full; make room" in refused_by_the_system(error.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_device_as_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = command("benchmark", "--methods", "list", stdout=full)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: No space left on device")
        and done.stderr.count("\n") == 1
    )


def test_a_reader_that_went_away_ends_the_command_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    done = command("benchmark", "--methods", "list", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_pipe_of_another_kind_that_breaks_keeps_its_traceback():
    """As of a connection or a child process: the reader of the output is there."""
    program = "from adaspec_jax.errors import exit_with_one_line\n"
    program += "def main(): raise BrokenPipeError(32, 'Broken pipe')\nexit_with_one_line(main)"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr


DOORS = sorted(
    path.stem for path in (CHECKOUT / "adaspec_jax").glob("*.py") if "exit_with_one_line(main)" in path.read_text()
)


@pytest.mark.parametrize("module", DOORS)
def test_commands_need_no_docstrings(module):
    """`python -OO` has none."""
    done = command(module, "--help", python=["-OO"], stdout=subprocess.PIPE)
    assert done.returncode == 0 and "usage" in done.stdout and not done.stderr


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(pipe := tmp_path / "rows.jsonl")
    for read in (open_unpacked, read_json, ordinary):
        with pytest.raises(UserError, match="rows.jsonl is no ordinary file, and it is read more than once; copy it"):
            read(pipe)
    done = command("evaluate", "--task", "gsm8k", "--target", "x", "--data", str(pipe), "--json", "/dev/null")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "9" * 5000])
def test_json_that_python_does_not_read_is_no_json(text, tmp_path):
    with pytest.raises(ValueError):
        parsed(text)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json is not valid JSON"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("generate", ["--target", "", "--prompt", "a"], "--target is empty; give a value, or leave it out"),
        (
            "evaluate",
            ["--target", "x", "--task", "gsm8k", "--json", "README.md", "--data", "README.md"],
            "--json and --data are the same",
        ),
        (
            "rag",
            ["--target", "x", "--draft", "y", "--questions", "LICENSE", "--json", "LICENSE"],
            "the same file, LICENSE",
        ),
        ("schedule", ["--target", "x", "--draft", "y", "--prompts", "p", "--json", "p"], "the same file, p"),
        ("generate", ["--target", "x", "--prompt", "a", "--max_new_tokens", "99999999999"], "at most 16,777,216"),
        ("generate", ["--target", "x", "--prompt", "a", "--temperature", "nan"], "--temperature is nan; it must be at"),
        ("benchmark", ["--target", "x", "--task", "gsm8k", "--batch_size", "1,0"], "--batch_size is 0; it must be at"),
        (
            "doctor",
            ["--target", "x", "--draft", "y", "--draft_length", "1e3"],
            "--draft_length is 1e3; give a whole number",
        ),
    ],
)
def test_settings_without_sense_are_said_before_anything_is_loaded(module, arguments, says):
    done = command(module, *arguments, stdout=subprocess.PIPE)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_libraries_that_log_and_raise_in_threads_of_their_own_leave_it_one_line():
    """As orbax does where a disk is full: each of its threads logs the error, and raises it where nobody catches."""
    program = f"""
import logging, threading
from adaspec_jax.errors import exit_with_one_line
full = ValueError({str(LIBRARYS)!r})
def write():
    try:
        raise full
    except ValueError:
        logging.getLogger("absl").error("a thread failed", exc_info=True)
        raise
def main():
    thread = threading.Thread(target=write)
    thread.start(), thread.join()
    raise RuntimeError("waited for it") from full
exit_with_one_line(main)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: /full/run/draft/3/state: No space left on device"), (
        done
    )
    assert done.stderr.count("\n") == 1
    other = subprocess.run(
        [sys.executable, "-c", program.replace("No space", "Some room")], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert other.returncode == 1 and other.stderr.count("Traceback") >= 3


STORIES = "--target", "{stories}", "--prompt", "Once"


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("generate", [*STORIES, "--method", "lookahead", "--method.window=1000000000"], "up to 16,777,216"),
        (
            "generate",
            [*STORIES, "--method", "prompt_lookup", "--method.length=100000"],
            "makes 100,000 guesses; at most",
        ),
        (
            "train",
            ["--config", "configs/quickstart.py", "--config.data.mixture=('word_problems*1e30',)"],
            "up to 1,000,000",
        ),
        ("train", ["--config", "configs/quickstart.py", "--config.data.num_train=2000000000"], "at most 10,000,000"),
    ],
)
def test_numbers_that_would_take_all_memory_or_time_are_said_at_once(module, arguments, says, shared_weights, tmp_path):
    stories = str(shared_weights("stories260K-hf"))
    where = ["--workdir", str(tmp_path / "run")] if module == "train" else []
    done = command(module, *(text.replace("{stories}", stories) for text in arguments), *where, stdout=subprocess.PIPE)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("error: ") == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
