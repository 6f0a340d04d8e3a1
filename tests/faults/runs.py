"""A tiny run, from the data to an exported draft, in a process that does to itself what is to be done to it.

`python -m tests.faults.runs BASE [FILE]` runs it undisturbed in BASE, and records in FILE what it asks of the system. A
`Trouble` is met at a moment of the run: at the n-th thing that it does to files of one kind, or at a training step;
what C++ writes is reached by a delay after that.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import re
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.running import CHECKOUT

SETTINGS = {
    "data.num_train": 32,
    "data.num_evaluation": 4,
    "data.buckets": "(256,)",
    "data.length_window": 1,
    "tokenizer.vocab_size": 320,
    "teacher": "hidden",
    "answers.source": "target",
    "answers.max_new_tokens": 24,
    "checkpoint_every": 2,
    "evaluation.num_prompts": 4,
    "evaluation.batch_size": 4,
    "evaluation.max_new_tokens": 8,
    "evaluation.draft_length": 2,
    "evaluation.resamples": 100,
}
for _name, _sizes in {"target": (32, 64), "draft": (24, 32)}.items():
    SETTINGS |= {f"{_name}.architecture.vocab_size": 320, f"{_name}.architecture.num_hidden_layers": 1}
    SETTINGS |= {f"{_name}.architecture.hidden_size": _sizes[0], f"{_name}.architecture.intermediate_size": _sizes[1]}
SETTINGS |= {"draft.architecture.num_attention_heads": 3}
for _name in ("target", "reference", "draft"):
    SETTINGS |= {f"{_name}.batch_size": 4, f"{_name}.epochs": 2}

RUN, EXPORT, MOMENTS, SAID = "run", "exported", "moments.json", "stderr.txt"  # below BASE
STAGES = ("target", "reference", "draft")
_BEGINNING = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")
_LOOKED_AT = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Trouble:
    """`signal` is sent `delay` seconds after the moment `number` (from 1) of a place; None: at the first moment, no
    file may become larger than `largest` bytes, as on a full disk."""

    place: str
    number: int
    delay: float = 0.0
    signal: int | None = signal.SIGKILL
    largest: int | None = None


def forked(base: Path, trouble: Trouble | None = None, *, joined: Mapping[str, int] | None = None) -> int:
    """The id of a child of this process, which has not computed anything yet, that runs in BASE."""
    for name in ("adaspec_jax.pipeline", "transformers.models.auto.tokenization_auto"):
        import_module(name)  # once, here
    base.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 70
    try:
        status = _run(base, trouble, joined or {})
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def ended(pid: int, patience: float = 600) -> int:
    """The status of a child, negative where a signal ended it; TimeoutError where it is stuck, after a kill."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run had not ended after {patience} s")


def said(base: Path) -> str:
    """What the last run there said on standard error."""
    return (base / SAID).read_text(errors="replace")


def moments(base: Path) -> list[tuple[str, float]]:
    """(place, seconds since the start) of all moments of an undisturbed run there."""
    return [tuple(each) for each in json.loads((base / MOMENTS).read_text())]


def place_of(path: Path) -> str:
    """Of a file below BASE; what it is part of."""
    if not path.parts:
        return ""
    top, *parts = [(m[1] if (m := _BEGINNING.fullmatch(part)) else part) for part in path.parts]
    if top == EXPORT:
        return "export"
    if top != RUN or not parts:
        return ""
    if parts[0] in STAGES:
        kind = {"checkpoints": "checkpoints", "metrics.jsonl": "metrics"}.get(parts[1] if parts[1:] else "", "weights")
        return f"{kind} of {parts[0]}"
    if parts[0] in ("teacher", "answers", "tokenizer"):
        return parts[0]
    return "report" if re.match(r"report|counts", parts[0]) else "notes"


class _Moments:
    """Counts what this process does, and meets its trouble."""

    def __init__(self, base: Path, trouble: Trouble | None) -> None:
        self._base, self._trouble, self._stage = str(base) + "/", trouble, ""
        self._count, self.seen, self._began = Counter(), [], time.monotonic()
        sys.addaudithook(self._audited)

    def _audited(self, event: str, args: tuple) -> None:
        if event not in _LOOKED_AT or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (re.search("[wax+]", args[1]) if args[1] else args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith(self._base) and (place := place_of(Path(path[len(self._base) :]))):
            self.meet(place)
            if place.startswith("metrics of "):
                self._stage = place.removeprefix("metrics of ")

    def step(self) -> None:
        self.meet(f"steps of {self._stage}")

    def meet(self, place: str) -> None:
        self._count[place] += 1
        self.seen.append((place, time.monotonic() - self._began))
        if (trouble := self._trouble) is None or (place, self._count[place]) != (trouble.place, trouble.number):
            return
        self._trouble = None
        if trouble.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, resource.RLIM_INFINITY))
        elif trouble.delay:
            later = threading.Timer(trouble.delay, os.kill, (os.getpid(), trouble.signal))
            later.daemon = True
            later.start()
        else:
            os.kill(os.getpid(), trouble.signal)


def _run(base: Path, trouble: Trouble | None, joined: Mapping[str, int]) -> int:
    """Both commands, as a shell runs them; the first status that is not 0."""
    os.chdir(base)
    for number, name in ((1, "stdout.txt"), (2, SAID)):
        name = f"{joined['JAX_PROCESS_ID']}.{name}" if joined else name
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ |= {name: str(value) for name, value in joined.items()}
    from adaspec_jax.devices import processes

    seen, stopping = _Moments(Path.cwd(), trouble), processes.stopping

    def counted(step: int) -> bool:
        seen.step()
        return stopping(step)

    processes.stopping = counted
    import_module("adaspec_jax.measuring.measure").LONGEST = 2  # costs of few guesses
    settings = SETTINGS | {"distributed": "auto" if joined else "off"}
    status = _command(
        "train",
        *("--config", CHECKOUT / "configs" / "quickstart.py", "--workdir", RUN),
        *(f"--config.{key}={value}" for key, value in settings.items()),
    )
    first = joined.get("JAX_PROCESS_ID", 0) == 0
    if not status and first and not Path(EXPORT).exists():  # it appears whole or not at all
        status = _command("export", "--workdir", RUN, "--stage", "draft", "--out", EXPORT)
    if first and trouble is None:
        Path(MOMENTS).write_text(json.dumps(seen.seen))
    if joined:
        atexit._run_exitfuncs()  # the processes part in order
    return status


def _command(name: str, *arguments) -> int:
    from adaspec_jax.errors import exit_with_one_line

    sys.argv = [name, *map(str, arguments)]
    try:
        exit_with_one_line(import_module(f"adaspec_jax.{name}").main)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> int:
    base, *record = (Path(argument).absolute() for argument in sys.argv[1:])
    base.mkdir(parents=True, exist_ok=True)
    if not record:
        return _run(base, None, {})
    from tests.faults.own_calls import OwnCalls

    calls = OwnCalls(base)
    status = _run(base, None, {})
    calls.look()
    record[0].write_bytes(pickle.dumps(calls.ops))
    return status


if __name__ == "__main__":
    sys.exit(main())
