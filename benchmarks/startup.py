"""How long commands take to begin: the help of each, the package's import, and a compiled program in a second process.

    python benchmarks/startup.py --json benchmarks/results/startup.json

Every row is a fresh process each time, all rows in turn. Help and import: the whole process, from outside; "nothing"
is the interpreter's own share, and CPU seconds are what a busy machine changes least. Programs: decoding of one prompt
of 32 tokens by a target of the 160M and a draft of the 31M shape, compiled by a first process; in a second one the
seconds to trace and lower it, and to find it in the cache of compiled programs and load it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "benchmarks"), str(CHECKOUT)]

from interleave import machine  # noqa: E402

from adaspec_jax.__main__ import COMMANDS  # noqa: E402

PROGRAMS = ("plain", "speculative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--target", default="160m", help="a Pythia shape, of benchmarks/pairs.py")
    parser.add_argument("--draft", default="31m")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no_programs", action="store_true", help="help and imports alone")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.program:
        return print(json.dumps(seconds_to_start(args)))
    rows = {"nothing": ["-c", "pass"], "import adaspec_jax": ["-c", "import adaspec_jax"]}
    rows |= {f"import {name}": ["-c", f"import {name}"] for name in ("jax", "adaspec_jax.decoding")}
    rows |= {f"{name} --help": ["-m", f"adaspec_jax.{name}", "--help"] for name in COMMANDS}
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        wanted = () if args.no_programs else PROGRAMS
        programs = {name: [__file__, f"--program={name}", f"--weights={folder}"] for name in wanted}
        if programs:
            save_pair(args, Path(folder))
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        first = {name: json.loads(run(command, cache)[2]) for name, command in programs.items()}
        outside: dict[str, list] = {name: [] for name in rows}  # (seconds, CPU seconds)
        inside: dict[str, list] = {name: [] for name in programs}
        for _ in range(args.repeats):
            for name, command in rows.items():
                outside[name].append(run(command)[:2])
            for name, command in programs.items():
                inside[name].append(json.loads(run(command, cache)[2]))
    found = {
        name: summary([seconds for seconds, _ in row]) | {"cpu_seconds": statistics.median(cpu for _, cpu in row)}
        for name, row in outside.items()
    }
    started = {name: started_in_words(first[name], again) for name, again in inside.items()}
    print(table(found, started))
    if args.json:
        settings = {"repeats": args.repeats, "target": args.target, "draft": args.draft}
        around = {"before": before, "after": os.getloadavg()}
        report = {"settings": settings, "machine": machine(), "load": around, "processes": found, "programs": started}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Seconds and CPU seconds of a Python process in the checkout, and what it printed."""
    began, used = time.perf_counter(), children_cpu()
    done = subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}; see its message above")
    return seconds, children_cpu() - used, done.stdout


def children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def save_pair(args, folder: Path) -> None:
    from pairs import matched_pair

    from adaspec_jax import models

    for name, model in zip(("target", "draft"), matched_pair(args.target, args.draft), strict=True):
        models.save(model, folder / name)


def seconds_to_start(args) -> dict[str, float]:
    """Of the program in this process: "lower" (tracing included) and "compile" (or loading from the cache)."""
    import jax
    from decode import prompt_of, start

    from adaspec_jax import models
    from adaspec_jax.decoding import ChainDrafter, NoDraft

    target, draft = (jax.device_put(models.load(args.weights / name)) for name in ("target", "draft"))
    drafter = NoDraft() if args.program == "plain" else ChainDrafter(draft, length=5)
    given = Namespace(batch=1, prompts=1, prompt=32, new=96)
    return start(target, drafter, prompt_of(given), given)


def summary(seconds: list[float]) -> dict[str, float]:
    return {"seconds": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


def started_in_words(first: dict, again: list[dict]) -> dict:
    parts = {name: summary([row[name] for row in again]) for name in first}
    return {"first_process": first, **parts, "together": summary([sum(row.values()) for row in again])}


def table(found: dict[str, dict], started: dict[str, dict]) -> str:
    lines = [f"{'':24}{'seconds':>10}{'lowest':>9}{'highest':>9}{'CPU s':>8}"]
    rows = found | {f"{name}, {part}": row[part] for name, row in started.items() for part in ("lower", "compile")}
    rows |= {f"{name}, together": row["together"] for name, row in started.items()}
    for name, row in rows.items():
        cpu = f"{row['cpu_seconds']:8.3f}" if "cpu_seconds" in row else ""
        lines.append(f"{name:24}{row['seconds']:10.3f}{row['lowest']:9.3f}{row['highest']:9.3f}{cpu}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
