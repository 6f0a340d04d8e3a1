"""Runs a command line in this process and catches what it prints."""

import importlib
import sys
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


def optimised(step, *arguments):
    """A jitted function compiled for these arguments as it would be outside the tests (`tests/conftest.py`)."""
    return step.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 3})
