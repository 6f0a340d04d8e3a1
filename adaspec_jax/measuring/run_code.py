"""Whether a program that a model wrote passes its task's tests: run apart, with limits. No sandbox."""

from __future__ import annotations

import ast
import builtins
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap

SECONDS = 5  # of processor time; as many again on the clock, for waiting
_BYTES = 2**30  # of memory
_PASSED = 97  # the status of a process that came to its end: a program may leave with 0 before its tests
_FENCE = re.compile(r"\s*```[ \t]*(\w*)[ \t]*$")
_PYTHON = ("", "py", "python", "python3")
_BEGINS = re.compile(r"(def|class|import|from)\b|@|\w+ *=")
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    resource.setrlimit(resource.RLIMIT_AS, ({bytes}, {bytes}))
except ValueError:  # macOS has no such limit
    pass
exec(compile(sys.stdin.read(), "answer", "exec"), {{"__name__": "answer"}})
sys.exit({passed})
"""


def passes_tests(said: str, tests: str) -> float:
    """1 where the program in `said` passes all of `tests`, one assertion in Python at least; else 0.

    It runs in a process of its own, in an empty folder and environment, with limits of time and memory, and what it
    writes to files stays empty. That stops accidents, not malice: the process may still delete, or reach the network.
    """
    code = program_in(said)
    if not code or "assert" not in tests:
        return 0.0
    text = "\n".join([code, _under_the_tested_name(code, tests), tests])
    command = [sys.executable, "-I", "-c", _LIMITED.format(seconds=SECONDS, bytes=_BYTES, passed=_PASSED)]
    closed = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with tempfile.TemporaryDirectory() as empty:
        running = subprocess.Popen(command, cwd=empty, env={}, stdin=subprocess.PIPE, **closed)
        try:
            running.communicate(text.encode(errors="replace"), timeout=2 * SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(running)
    return float(running.returncode == _PASSED)


def program_in(said: str) -> str:
    """The first block of Python between fences, else the text from a line of code on; as many lines as are Python."""
    blocks = [block for tag, block in _blocks(said) if tag in _PYTHON] or [said]
    return next(filter(None, map(_program, blocks)), "")


def _blocks(said: str) -> list[tuple[str, str]]:
    """(tag, text) of what stands between lines of ```, the last one to the end where it is not closed."""
    found, lines, tag = [], [], None
    for line in [*said.splitlines(), "```"]:
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
            continue
        if tag is not None:
            found.append((tag, textwrap.dedent("\n".join(lines))))
        tag, lines = (fence[1].lower() if tag is None else None), []
    return found


def _program(text: str) -> str:
    """From the first line with which Python begins that parses, to the last with which it does."""
    lines = text.splitlines()
    for begin in (i for i, line in enumerate(lines) if _BEGINS.match(line)):
        for end in range(len(lines), begin, -1):
            code = "\n".join(lines[begin:end])
            if _parsed(code) is not None:
                return code
    return ""


def _under_the_tested_name(code: str, tests: str) -> str:
    """What gives the program's last function the name that the tests call, which the prompt does not say."""
    functions = [node.name for node in _parsed(code).body if isinstance(node, ast.FunctionDef)]
    defined = [name for name in functions if name != "main"]
    asserted = [node for node in ast.walk(_parsed(tests) or ast.Module([], [])) if isinstance(node, ast.Assert)]
    calls = [node.func.id for each in asserted for node in ast.walk(each) if _is_plain_call(node)]
    called = [name for name in calls if not hasattr(builtins, name)]
    if not defined or not called:
        return ""
    return f"if {called[0]!r} not in globals():\n    {called[0]} = {defined[-1]}"


def _is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _end(running: subprocess.Popen) -> None:
    """Kills it, and whatever it started in its session."""
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    running.wait()
