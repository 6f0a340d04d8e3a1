"""python -m tests.faults.pressure --runs 50 [--megabytes 1100] [--tests FILE ...] [--json FILE]

Runs tests that compile much, again and again, each time anew and with little memory, and counts how they end. An
interpreter that crashed once in a run of tests beside heavy processes would leave Python's and C's frames here
(`faulthandler`). Little memory is a control group of the system's (root, version 1 or 2), in which the programs' own
pages are read from the disk over and over; where there is none, `--megabytes` of address space beyond 16 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.running import CHECKOUT

TESTS = ("tests/decoding/test_engine.py", "tests/training/test_objectives.py")
_GROUPS = {
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    Path("/sys/fs/cgroup"): ("memory.max", "memory.peak"),
}


def group_of(megabytes: int) -> tuple[Path, str] | None:
    """(a control group with so much memory, its file that says the most that was used); None where none can be made."""
    for root, (limit, most) in _GROUPS.items():
        group = root / f"pressure{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(megabytes * 2**20))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        return group, most
    return None


def run(tests: list[str], group: tuple[Path, str] | None, megabytes: int) -> tuple[int, str]:
    """(status, the end of what was said)."""

    def enter() -> None:
        if group is not None:
            (group[0] / "cgroup.procs").write_text(str(os.getpid()))
        else:
            resource.setrlimit(resource.RLIMIT_AS, (2**34 + megabytes * 2**20, resource.RLIM_INFINITY))

    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(command, cwd=CHECKOUT, env=kept, preexec_fn=enter, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr)[-3000:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=1100)
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    group = group_of(asked.megabytes)
    ends, crashes, began = Counter(), [], time.monotonic()
    for number in range(asked.runs):
        status, said = run(asked.tests, group, asked.megabytes)
        ends[status] += 1
        print(f"{number:3d} status {status}", flush=True)
        if status != 0:
            crashes.append({"run": number, "status": status, "said": said})
            print(said, flush=True)
    used = int((group[0] / group[1]).read_text()) // 2**20 if group else None
    result = {"tests": asked.tests, "runs": asked.runs, "megabytes": asked.megabytes, "most used": used}
    result |= {"group": group is not None, "ends": dict(ends), "others": crashes, "seconds": time.monotonic() - began}
    print(json.dumps({**result, "others": len(crashes)}))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    if group:
        group[0].rmdir()
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
