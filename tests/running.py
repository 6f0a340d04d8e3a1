"""Runs a command line in this process and catches what it prints."""

import fcntl
import importlib
import os
import select
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


# Opened by the leader of a session it becomes that session's terminal, whose Ctrl-C is a signal: one that a shell's
# background jobs ignore, and so would all they start.
_AT_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.dup2(os.open(sys.argv[1], os.O_RDWR), 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


def in_a_terminal(program, *, columns=80, keys=None, status=0, arguments=("-c",), **environment):
    """(standard output, what is shown) of a program whose screen and keyboard are a pseudo-terminal, which echoes keys.

    `program`: after python's `arguments`. `keys`: pairs of what is waited for and what is then typed; where there are
    any, standard output is the terminal's too. A Ctrl-C that nothing answers is typed once more: CPython's `input` with
    readline loses a signal that comes between its prompt and its wait for a key.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    env = {name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm"} | environment
    command = [sys.executable, *arguments, *([program] if isinstance(program, str) else program)]
    command = [sys.executable, "-c", _AT_A_TERMINAL, os.ttyname(theirs), *command]
    streams = {"stderr": theirs, "stdout": subprocess.PIPE if keys is None else theirs}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=env, start_new_session=True, **streams)
    os.close(theirs)
    shown, waiting, seen, interrupted = b"", list(keys or ()), 0, False
    try:
        while True:
            if not select.select([ours], [], [], 5 if interrupted else PATIENCE / 3)[0]:
                if not interrupted:
                    break
                interrupted = False
                os.write(ours, b"\x03")
                continue
            if not (part := os.read(ours, 65536)):
                break
            shown += part
            while waiting and (at := shown.find(waiting[0][0], seen)) >= 0:
                seen = at + len(waiting[0][0])
                _, key = waiting.pop(0)
                interrupted = key == b"\x03"
                os.write(ours, key)
    except OSError:  # Linux' word for the end of a terminal that nobody holds any more
        pass
    os.close(ours)
    if waiting:
        process.kill()  # what it was to say never came
    said = (process.communicate(timeout=PATIENCE)[0] or b"").decode()
    assert process.returncode == status and not waiting, shown.decode()
    return said, shown.decode().replace("\r\n", "\n")


def optimised(step, *arguments):
    """A jitted function compiled for these arguments as it would be outside the tests (`tests/conftest.py`)."""
    return step.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 3})
