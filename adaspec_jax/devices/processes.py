"""One run of several processes: joined at the start, agreeing on what they do, writing once.

Every process runs the same program on global arrays and reads its own rows of the data. What fails in one is said by
all, so that none waits for an answer that will not come. With one process all of this is nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from adaspec_jax import voice
from adaspec_jax.errors import Stopped, UserError

HEARTBEAT_SECONDS = 30  # a process not heard of for so long is taken for dead
_WORDS = 4096  # bytes of a message between processes
_LOST = re.compile(r"Gloo|[Cc]onnection|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|heartbeat|coordination service")
_GATHERED_AT_ONCE = 2**28  # bytes
_AGAIN = "start all of them again with the same command: they go on from the last checkpoint"
_at_once: list[Callable[[], None]] = []  # what must be done even where an orderly exit is not
_T = TypeVar("_T")


class _Stop:
    """When this process was told to stop, and how long that may take."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.asked, self.longest, self._last = None, 0.0, time.perf_counter()

    def step(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now


_stop = _Stop()


def join(mode: str) -> None:
    """Joins the other processes of this run; nothing for "off". Must come before anything is computed.

    "auto" asks the cluster (Cloud TPU, SLURM, Open MPI, Kubernetes), or takes JAX_COORDINATOR_ADDRESS (host:port of the
    first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID from the environment. UserError where neither tells.
    """
    if mode == "off":
        return
    told = {}
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        told["coordinator_address"] = os.environ["JAX_COORDINATOR_ADDRESS"]
        for name, variable in (("num_processes", "JAX_NUM_PROCESSES"), ("process_id", "JAX_PROCESS_ID")):
            value = os.environ.get(variable, "")
            if not value.isdigit():
                raise UserError(f'{variable} is "{value}"; with JAX_COORDINATOR_ADDRESS it must be a number')
            told[name] = int(value)
    try:
        jax.distributed.initialize(**told, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f'config.distributed is "auto", and this process could not join a run ({reason}); start it through SLURM, '
            "Open MPI, Kubernetes or on a Cloud TPU, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
        ) from error
    _leave_last_words()


def _leave_last_words() -> None:
    """A line on standard error should this process end without a word, as jax ends it when another one is lost.

    That happens inside jax, where no Python runs any more: a shell waits for the end of a pipe.
    """
    words = f"error: process {jax.process_index()} was stopped, or ended because another process was; {_AGAIN}"
    waiting = subprocess.Popen(["sh", "-c", 'read -r word || echo "$0" >&2', words], stdin=subprocess.PIPE)

    def say_goodbye() -> None:
        waiting.communicate(b"bye\n")

    atexit.register(say_goodbye)
    _at_once.append(say_goodbye)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """In it SIGTERM, which a machine sends before it is taken away, is what `stopping` tells; a second ends at once.

    Elsewhere it ends the process as ever: there is no step to save.
    """
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield  # of several processes, jax itself listens; and handlers belong to the main thread
        return

    def note(*_) -> None:
        _stop.asked = time.perf_counter()
        signal.signal(signal.SIGTERM, before)
        took = f"steps took up to {_stop.longest:.1f} s so far" if _stop.longest else "it is the first, and compiles"
        words = f"SIGTERM: the step under way is finished and saved first; {took}"
        with contextlib.suppress(OSError):  # by the system: a stream may be in the middle of a line
            os.write(2, f"{words}. A second one ends at once, without that.\n".encode())

    _stop.begin()
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    except Stopped as stop:
        if _stop.asked is None:
            raise
        raise Stopped(f"{stop}, {time.perf_counter() - _stop.asked:.1f} s after it") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped() -> bool:
    """Whether this process was told to stop while it listened, and has not stopped yet; of several, none is asked."""
    return jax.process_count() == 1 and _stop.asked is not None


def stopping(step: int) -> bool:
    """Whether all processes should stop after this step, because one was told to."""
    if jax.process_count() == 1:
        _stop.step()
        return _stop.asked is not None
    return multihost_utils.reached_preemption_sync_point(step)


def first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def say(text: str) -> None:
    if first():
        voice.say(text, aside=False)


@functools.cache
def note(text: str) -> None:
    """`text` on stderr, the first time it is given."""
    if first():
        voice.say(text)


def together(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def each(function: Callable[[], _T]) -> _T:
    """The function's value; a UserError in any process is raised in all, with the process it comes from."""
    if jax.process_count() == 1:
        return function()
    value, complaint = None, ""
    try:
        value = function()
    except UserError as error:
        complaint = str(error)
    for number, said in enumerate(_gathered(complaint)):
        if said:
            raise UserError(f"process {number}: {said}")
    return value


def once(function: Callable[[], _T]) -> _T:
    """The value (as JSON has it) of a function that the first process alone calls."""
    if jax.process_count() == 1:
        return function()
    value = each(lambda: function() if first() else None)
    return json.loads(_from_first(json.dumps(value)))


def everyones(value: int) -> list[int]:
    """What each process says."""
    if jax.process_count() == 1:
        return [value]
    return [int(text) for text in _gathered(str(value))]


def agree(values: Mapping[str, Any], what: str) -> None:
    """UserError in all processes, naming the first key whose value is not the first process' in one of them."""
    if jax.process_count() == 1:
        return
    texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in values.items()}
    theirs = json.loads(_from_first(json.dumps(texts)))

    def compare() -> None:
        for key in [*theirs, *(key for key in texts if key not in theirs)]:
            if texts.get(key) != theirs.get(key):
                raise UserError(
                    f"its {what} differs from that of process 0: {key} is {texts.get(key)}, not {theirs.get(key)}; "
                    "start every process with the same command, code and data"
                )

    each(compare)


def fetch(tree: Any) -> Any:
    """Whole NumPy arrays of global ones, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(_fetched, tree)


def run(function: Callable[[], _T]) -> _T:
    """The function's value. A process of several that fails says why and ends without waiting for the others.

    They lose it within `HEARTBEAT_SECONDS`, and end too: status 2 after a UserError, else 1.
    """
    if jax.process_count() == 1:
        return function()
    try:
        return function()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except Stopped:
        raise  # together: all processes stop after the same step
    except Exception as error:
        status = 1
        if not _LOST.search(str(error)):
            traceback.print_exc()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(
            f"error: process {jax.process_index()} ends because another process of this run has stopped, or it failed "
            f"itself ({reason}); {_AGAIN}",
            file=sys.stderr,
        )
    for act in (*_at_once, sys.stdout.flush, sys.stderr.flush):
        act()
    os._exit(status)  # an orderly exit would wait for the others


def _fetched(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    if leaf.ndim > 2 and leaf.nbytes > _GATHERED_AT_ONCE:  # stacked layers: never all of them on one device
        return np.stack([_fetched(leaf[i]) for i in range(leaf.shape[0])])
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _gathered(text: str) -> list[str]:
    sent = np.zeros(_WORDS, np.uint8)
    content = np.frombuffer(text.encode()[:_WORDS], np.uint8)
    sent[: len(content)] = content
    received = multihost_utils.process_allgather(sent).reshape(jax.process_count(), _WORDS)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in received]


def _from_first(text: str) -> str:
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    buffer = np.zeros(size, np.uint8)
    if first():
        buffer[:] = content
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))).decode()
