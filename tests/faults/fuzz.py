"""python -m tests.faults.fuzz --cases 100000 [--only rows,weights] [--seed 0] [--jobs 2] [--json FILE]

Opens every door of `tests.faults.hostile` with as many wrong inputs, and prints, by door, how many were taken and how
many ended in any other way than by one line. A failing case is repeated by `--only DOOR --case NUMBER`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random

logging.disable()

_BLOCK = 250  # cases of a door that a worker takes at once
_MEMORY = 6 * 2**30  # bytes that a worker may map beyond what it has: more is a failure


def block(door: str, seed: int, numbers: list[int]) -> tuple[int, list[tuple[int, str]]]:
    """Of some cases of a door: how many were taken, and the failures: (number, what is wrong)."""
    from tests.faults import hostile

    watch, place = _watch(), Path(tempfile.gettempdir()) / f"fuzz.{os.getpid()}"
    found, taken = [], 0
    for number in numbers:
        outcome = hostile.opened(hostile.DOORS[door], Random(f"{seed} {door} {number}"), place, watch)
        taken += outcome == hostile.TAKEN
        if outcome not in (hostile.TAKEN, hostile.REFUSED):
            found.append((number, outcome))
    shutil.rmtree(place, ignore_errors=True)
    return taken, found


def _watch():
    from tests.faults import hostile
    from tests.faults.watch import Watch

    if not hasattr(block, "watch"):  # a hook cannot be taken off again
        os.environ["HF_HUB_OFFLINE"] = "1"
        sys.stdout = open(os.devnull, "w")  # notes
        hostile.prepare()
        block.watch = Watch()
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY, resource.RLIM_INFINITY))
    return block.watch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--only")
    parser.add_argument("--case", type=int, help="one of a door, with its traceback")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    from tests.faults import hostile

    doors = asked.only.split(",") if asked.only else list(hostile.DOORS)
    if asked.case is not None:
        return _repeat(doors[0], asked.seed, asked.case)
    each = -(-asked.cases // len(doors))
    blocks = [(door, range(at, min(at + _BLOCK, each))) for at in range(0, each, _BLOCK) for door in doors]
    failures, taken, began = defaultdict(list), Counter(), time.monotonic()
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn")) as workers:
        running = {workers.submit(block, door, asked.seed, list(numbers)): door for door, numbers in blocks}
        for done in as_completed(running):
            count, wrong = done.result()
            failures[running[done]] += wrong
            taken[running[done]] += count
    for door in doors:
        wrong = Counter(what[:160] for _, what in failures[door])
        counts = f"{taken[door]:7,} taken, {each - taken[door] - len(failures[door]):7,} refused in one line"
        print(f"{door:18} {each:7,} cases: {counts}, {len(failures[door]):5,} failed")
        for what, count in wrong.most_common(12):
            first = next(number for number, said in failures[door] if said[:160] == what)
            print(f"    {count:5,} of them, as case {first}: {what}")
    total = sum(map(len, failures.values()))
    print(f"{each * len(doors):,} cases in {time.monotonic() - began:,.0f} s, {total:,} failures")
    if asked.json:
        result = {"seed": asked.seed, "cases": {door: {"all": each, "taken": taken[door]} for door in doors}}
        result |= {"failures": {door: sorted(failures[door]) for door in doors if failures[door]}}
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if total else 0


def _repeat(door: str, seed: int, number: int) -> int:
    from tests.faults import hostile
    from tests.faults.watch import Watch

    place = Path(tempfile.mkdtemp(prefix="fuzz."))
    hostile.prepare()
    try:
        with Watch().over(place):
            hostile.DOORS[door](Random(f"{seed} {door} {number}"), place)
        print("taken")
    except BaseException:
        traceback.print_exc()
    print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
