"""Programs measured against each other in one run: each in a process of its own, one unit of work at a time in turn.

Slow drifts of a shared machine so hit all alike, and ratios can be trusted further than seconds. A worker prints one
JSON line when it is ready, does a unit for each "go" line on its standard input, and prints a JSON line for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

KEEP_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}
"""glibc told not to give memory back: the [tokens, V] temporaries of PyTorch are otherwise mapped anew each time."""


def serve(unit: Callable[..., dict], ready: dict) -> None:
    """The worker's side: a unit for each line until its standard input ends; what is not "go" is its argument.

    A first unit, unmeasured, warms it up.

    Peak memory is that of the units, where the system lets a process forget what loading took.
    """
    unit()
    print(json.dumps(ready | {"peak_mb_until_ready": _peak_mb()}), flush=True)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    for line in sys.stdin:
        command = line.split()
        cpu, began, busy = time.process_time(), time.perf_counter(), _busy_seconds()
        values = unit() if command == ["go"] else unit(*command)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        others = (_busy_seconds() - busy - used) / seconds  # cores that everybody else used meanwhile
        row = {"seconds": seconds, "cpu_seconds": used, "other_cores": round(others, 2), **values}
        print(json.dumps(row | {"peak_mb": _peak_mb()}), flush=True)


class Ended(SystemExit):
    """A worker ended before it answered."""


class Worker:
    """A program of this protocol, started; `ready` is what it said first."""

    def __init__(
        self, name: str, arguments: list[str], env: dict[str, str] | None = None, *, python=sys.executable, **process
    ) -> None:
        self.name = name
        self.rows: list[dict] = []  # of the units that are compared
        self.others: dict[str, list[dict]] = {}  # of further commands
        threads = str(os.cpu_count())
        settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [str(python), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings | (env or {}),
            **process,
        )
        try:
            self.ready = self._line()
        except BaseException:
            self._process.kill()
            raise

    def unit(self, command: str = "go") -> None:
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        rows = self.rows if command == "go" else self.others.setdefault(command, [])
        rows.append(self._line())

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise Ended(f"the worker {self.name} ended with status {self._process.wait()}; see its message above")


class PausedWorker(Worker):
    """A worker whose processes are all stopped while it is not its turn, so that idle threads of it cost nobody time.

    Its group stays in this session: should this process end without a word, the system ends the stopped ones too.
    """

    def __init__(self, *arguments, **process) -> None:
        super().__init__(*arguments, process_group=0, **process)
        self._signal(signal.SIGSTOP)

    def unit(self, command: str = "go") -> None:
        self._signal(signal.SIGCONT)
        super().unit(command)
        self._signal(signal.SIGSTOP)

    def stop(self) -> None:
        self._signal(signal.SIGCONT)
        super().stop()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def interleave(workers: list[Worker], repeats: int, *, also: dict[str, list[str]] | None = None) -> dict[str, dict]:
    """{name: median, spread, peak memory, what the worker said, and the first worker's median over its own}.

    `also`: {name: commands} that these workers do in every round after their unit; their rows are in `Worker.others`.
    The workers go on living: `stop` them.
    """
    for number in range(repeats):
        for worker in workers:
            worker.unit()
            for command in (also or {}).get(worker.name, ()):
                worker.unit(command)
        print(f"round {number + 1}/{repeats}", file=sys.stderr, flush=True)
    first = statistics.median(row["seconds"] for row in workers[0].rows)
    results = {}
    for worker in workers:
        seconds = [row["seconds"] for row in worker.rows]
        results[worker.name] = {
            "seconds": statistics.median(seconds),
            "lowest": min(seconds),
            "highest": max(seconds),
            "repeats": repeats,
            "times_faster_than_first": first / statistics.median(seconds),
            "cpu_seconds": statistics.median(row["cpu_seconds"] for row in worker.rows),
            "other_cores": statistics.median(row["other_cores"] for row in worker.rows),
            "peak_mb": max(row["peak_mb"] for row in worker.rows),
            "last": {k: v for k, v in worker.rows[-1].items() if k not in ("seconds", "cpu_seconds", "other_cores")},
            "ready": worker.ready,
        }
    return results


def stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()


def table(results: dict[str, dict]) -> str:
    lines = [f"{'':24}{'seconds':>10}{'lowest':>9}{'highest':>9}{'times':>8}{'CPU s':>8}{'peak MB':>9}"]
    for name, row in results.items():
        lines.append(
            f"{name:24}{row['seconds']:10.3f}{row['lowest']:9.3f}{row['highest']:9.3f}"
            f"{row['times_faster_than_first']:8.2f}{row['cpu_seconds']:8.2f}{row['peak_mb']:9.0f}"
        )
    return "\n".join(lines)


def machine() -> dict:
    """What the numbers were measured on."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def _busy_seconds() -> float:
    """CPU seconds the whole machine has used since it started."""
    with open("/proc/stat") as file:
        values = [int(value) for value in file.readline().split()[1:]]
    return (sum(values) - values[3] - values[4]) / os.sysconf("SC_CLK_TCK")


def _peak_mb() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
