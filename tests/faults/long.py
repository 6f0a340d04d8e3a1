"""python -m tests.faults.long steps|generates|settings [--count N] [--json FILE]: what grows in a process that lasts.

steps: 20,000 steps of a tiny run; generates: 2,000 prompts, growing four times until the context is full;
settings: 200 methods with knobs, benchmarked ten at a time. After the first quarter, by which all programs should be
compiled, resident memory, compiled programs, open files and threads are counted at every point. Memory is flat where
the slope's 95 % interval, over all that is counted, allows less than 8 % of what was there.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from tests import tiny_pair
from tests.running import CHECKOUT

_GROWN = 0.08  # of memory, from the first quarter to the end: more is a leak
_WARM = 0.25  # of the points, until everything has been compiled
_TURNS = 4  # in which prompts grow until the context is full


def counted() -> dict[str, float]:
    """What this process holds now: resident megabytes, compiled programs, open files, threads."""
    import jax

    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    programs = len(jax.local_devices()[0].client.live_executables())
    files = len(os.listdir("/proc/self/fd"))
    return {"megabytes": resident / 2**20, "programs": programs, "files": files, "threads": threading.active_count()}


def slope(values: list[float]) -> tuple[float, float]:
    """(growth over all points by least squares, half its 95 % interval)."""
    at = np.linspace(0, 1, len(values))
    fit, residuals, *_ = np.polyfit(at, values, 1, full=True)
    error = math.sqrt(float(residuals[0]) / max(len(values) - 2, 1) / float(((at - at.mean()) ** 2).sum()))
    return float(fit[0]), 1.96 * error


def steps(count: int) -> Iterator[None]:
    """A point every hundredth of the steps; checkpoints and metrics as ever."""
    from adaspec_jax.devices import processes
    from adaspec_jax.errors import exit_with_one_line
    from tests.faults.runs import SETTINGS

    settings = SETTINGS | {"target.epochs": count / 8, "checkpoint_every": 500, "answers.source": "dataset"}
    settings |= {"data.num_train": 32, "reference.epochs": 1, "draft.epochs": 1}
    points, stopping = [], processes.stopping

    def counting(step: int) -> bool:
        if step % max(count // 100, 1) == 0:
            points.append(counted())
            kept = [each for each in (work / "run" / "target" / "checkpoints").iterdir() if each.name.isdigit()]
            assert len(kept) <= 4, kept  # two, one being written, one being deleted
        return stopping(step)

    processes.stopping = counting
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        sys.argv = ["train", "--config", str(CHECKOUT / "configs" / "quickstart.py"), "--workdir", str(work / "run")]
        sys.argv += [f"--config.{key}={value}" for key, value in settings.items()]
        with contextlib.suppress(SystemExit):
            exit_with_one_line(import_module("adaspec_jax.train").main)
        lines = (work / "run" / "target" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, count + 1))
    yield from points


def _given(place: Path):
    from adaspec_jax.measuring.pair import load_given

    llama = tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 1024}
    tiny_pair.save_run(place / "run", target=llama, draft=llama | {"hidden_size": 8})
    return load_given(str(place / "run" / "target"), [str(place / "run" / "draft")])


def generates(count: int) -> Iterator[dict[str, float]]:
    from adaspec_jax import methods
    from adaspec_jax.measuring.writing import Writing

    with tempfile.TemporaryDirectory() as place:
        given, ends = _given(Path(place))
        for number in range(count):
            turn, place_in_turn = divmod(number, count // _TURNS)  # no two prompts of a length, but in one turn's end
            length = 2 + turn + place_in_turn * 976 // (count // _TURNS)
            tokens = [1 + n % 200 for n in range(length)]
            for _ in Writing(given, methods.find("vanilla"), tokens, ends, max_new_tokens=16):
                pass
            if number % max(count // 100, 1) == 0:
                yield counted()


def settings(count: int) -> Iterator[dict[str, float]]:
    from adaspec_jax.errors import exit_with_one_line

    benchmark = import_module("adaspec_jax.benchmark")
    knobs = (("prompt_lookup", "length"), ("vanilla", "draft_length"), ("anpd", "length"), ("llma", "length"))
    with tempfile.TemporaryDirectory() as place:
        _given(Path(place))
        run, prompts = Path(place, "run"), Path(place, "p.jsonl")
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in tiny_pair.TEXTS[:2]))
        for number in range(count // 10):
            name, knob = knobs[number % len(knobs)]
            first = 1 + 10 * (number // len(knobs) % 2)
            values = ",".join(str(value) for value in range(first, first + 10))
            sys.argv = ["benchmark", "--target", str(run / "target"), "--draft", str(run / "draft"), "--methods", name]
            sys.argv += ["--sweep", f"{name}.{knob}={values}", "--prompts", str(prompts), "--max_new_tokens", "8"]
            sys.argv += ["--json", str(Path(place, "out.json"))]
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                try:
                    exit_with_one_line(benchmark.main)
                except SystemExit as end:
                    assert not end.code, said.getvalue()
            yield counted()


COUNTS: dict[str, tuple[Callable[[int], Iterator], int]] = {
    "steps": (steps, 20_000),
    "generates": (generates, 2_000),
    "settings": (settings, 200),
}


def judged(points: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of each count: at the end of the first quarter, at the end, its growth with half its interval, and `grew`."""
    kept = points[int(len(points) * _WARM) :]
    found = {}
    for name in kept[0]:
        values = [point[name] for point in kept]
        growth, half = slope(values)
        allowed = _GROWN * values[0] if name == "megabytes" else 0.0
        grew = growth - half > allowed if name == "megabytes" else values[-1] > max(values[: len(values) // 2])
        found[name] = {"first": values[0], "last": values[-1], "growth": growth, "half interval": half, "grew": grew}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COUNTS)
    parser.add_argument("--count", type=int)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    run, count = COUNTS[asked.what]
    count = asked.count or count
    points = list(run(count))
    found = judged(points)
    for name, each in found.items():
        growth = f"{each['growth']:+.2f} +- {each['half interval']:.2f}"
        print(f"{name:10} {each['first']:10.1f} -> {each['last']:10.1f}   growth {growth}{'   GREW' * each['grew']}")
    if asked.json:
        kept = json.loads(asked.json.read_text()) if asked.json.exists() else {}
        asked.json.write_text(json.dumps(kept | {asked.what: {"count": count, **found}}, indent=2) + "\n")
    return 1 if any(each["grew"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
