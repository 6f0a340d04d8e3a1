"""Runs a command line in this process and catches what it prints."""

import fcntl
import importlib
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from adaspec_jax.errors import exit_with_one_line

CHECKOUT = Path(__file__).resolve().parent.parent
PATIENCE = 900  # seconds until something that should have ended is called stuck; no test is about how fast it is


def slow(*values):
    """A case of a grid whose every branch other cases reach as well: run with `--slow` alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


def some(values, *kept):
    """A grid of which these cases run every time, and the rest with `--slow`."""
    assert set(kept) <= set(values)
    return [value if value in kept else slow(value) for value in values]


def command_line(capsys, monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    try:
        exit_with_one_line(importlib.import_module(f"adaspec_jax.{module}").main)
        status = 0
    except SystemExit as exit:
        status = exit.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def in_a_terminal(program, *, columns=80, keys=b"", status=0, arguments=("-c",), **environment):
    """(standard output, what is shown) of a program whose screen and keyboard are a pseudo-terminal, which echoes keys.

    `program`: after python's `arguments`. With `keys` typed beforehand its standard output is the terminal's too.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    env = {name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm"} | environment
    command = [sys.executable, *arguments, *([program] if isinstance(program, str) else program)]
    streams = {"stdin": theirs, "stderr": theirs, "stdout": theirs if keys else subprocess.PIPE}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=env, start_new_session=True, **streams)
    os.close(theirs)
    os.write(ours, keys)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux' word for the end of a terminal that nobody holds any more
        pass
    os.close(ours)
    said = process.communicate(timeout=PATIENCE)[0] or b""
    assert process.returncode == status, shown.decode()
    return said.decode(), shown.decode().replace("\r\n", "\n")


def optimised(step, *arguments):
    """A jitted function compiled for these arguments as it would be outside the tests (`tests/conftest.py`)."""
    return step.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 3})
