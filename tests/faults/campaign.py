"""python -m tests.faults.campaign --runs 300 --workdir DIR [--json FILE] [--jobs 2] [--seed 0] [--only kill,power]

Kills, stops, starves and damages tiny runs at moments spread evenly over all that they do, starts each again with the
same command, and compares what is left with a run that nobody disturbed: every file, but for times. The same command
goes on with the runs that are missing. `--without_fsync` plays power cuts back as if nothing had ever been synced, and
must find failures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from adaspec_jax import files
from tests.faults.alike import alike, differences
from tests.faults.power import Disk, Op, recorded, strace_works
from tests.faults.runs import EXPORT, MOMENTS, RUN, Trouble, ended, forked, moments, place_of, said
from tests.running import CHECKOUT

KINDS = ("kill", "power", "term", "flip", "kill", "power", "full", "flip", "kill", "gone", "term", "power")
# The undisturbed run has another order of sets, language and time zone than those that are compared with it.
ELSEWHERE = {"PYTHONHASHSEED": "1", "LC_ALL": "C", "LANG": "C", "TZ": "Asia/Tokyo"}
TWO = "two processes"  # every 20th run
_AGAIN = 4  # starts until a run must have ended
# Users may edit these in a finished stage, or what is left of a run does not read them: damage there is left alone.
_EDITABLE = re.compile(r"run/(target|reference|draft)/(tokenizer.*|generation_config)\.json|run/(answers|teacher)/.*")


class Campaign:
    """The undisturbed runs, and what is done to others."""

    def __init__(self, base: Path, *, seed: int, syncs: bool) -> None:
        self.base, self._seed, self._syncs = base, seed, syncs
        self.whole = base / "undisturbed"
        status, self.ops, self.by = self._recording()
        if status:
            raise SystemExit(f"the undisturbed run ended with {status}: {said(self.whole)[-2000:]}")
        self._expected = {1: alike(self.whole)}
        self._check_record()
        self._moments = moments(self.whole)
        self._cuts = self._evenly([place_of(Path(op.path[len(str(self.whole)) + 1 :])) for op in self.ops])

    def _recording(self) -> tuple[int, list[Op], str]:
        kept = self.base / "recorded.pickle"  # ours
        if not kept.exists():
            shutil.rmtree(self.whole, ignore_errors=True)
            kept.write_bytes(pickle.dumps(self._recorded_anew()))
        return pickle.loads(kept.read_bytes())

    def _recorded_anew(self) -> tuple[int, list[Op], str]:
        command = [sys.executable, "-m", "tests.faults.runs", str(self.whole)]
        how = {"cwd": CHECKOUT, "env": os.environ | ELSEWHERE}
        if strace_works():
            return *recorded(self.whole, self.base / "trace", command, **how), "strace"
        print("nothing may be traced here: power cuts are played back from what Python itself syncs and renames")
        file = self.base / "calls.pickle"
        status = subprocess.run([*command, str(file)], **how).returncode
        return status, [] if status else pickle.loads(file.read_bytes()), "our own calls"

    def _check_record(self) -> None:
        again = self.base / "played back"
        self._disk(len(self.ops)).write_to(again)
        if wrong := differences(self._expected[1], alike(again)):
            raise SystemExit(f"what was recorded is not what the run left: {wrong}")
        shutil.rmtree(again)

    def two(self) -> None:
        """Runs two processes undisturbed, once."""
        base = self.base / "undisturbed two"
        if not (base / MOMENTS).exists():
            shutil.rmtree(base, ignore_errors=True)
            assert self._started_two(base) == [0, 0], self._said(base, 2)
        self._expected[2] = alike(base)

    def one(self, number: int) -> dict[str, Any]:
        """A run, and what was wrong with how it ended."""
        moment = random.Random(f"{self._seed} {number}")
        kind = TWO if 2 in self._expected and number % 20 == 19 else KINDS[number % len(KINDS)]
        base = self.base / f"{number:04d}"
        shutil.rmtree(base, ignore_errors=True)
        try:
            act = {"kill": self._signal, "term": self._signal, "full": self._full, TWO: self._two}.get(kind)
            act = act or {"power": self._power, "flip": self._damage, "gone": self._damage}[kind]
            place, wrong = act(base, moment, kind)
        except TimeoutError as error:
            place, wrong = "?", [str(error)]
        if not wrong:
            shutil.rmtree(base)
        return {"number": number, "kind": kind, "place": place, "wrong": wrong}

    def _signal(self, base: Path, moment: random.Random, kind: str) -> tuple[str, list[str]]:
        wrong, place = [], ""
        for _ in range(1 + (moment.random() < 0.25)):  # some are disturbed again
            trouble = self._trouble(moment, {"kill": signal.SIGKILL, "term": signal.SIGTERM}[kind])
            place = place or trouble.place
            status = ended(forked(base, trouble))
            allowed = {"kill": (-signal.SIGKILL, 0), "term": (-signal.SIGTERM, 143, 0)}[kind]
            wrong += self._said_well(base, status, allowed)
        return place, wrong + self._goes_on(base)

    def _full(self, base: Path, moment: random.Random, kind: str) -> tuple[str, list[str]]:
        largest = int(math.exp(moment.uniform(math.log(4000), math.log(200_000))))
        trouble = self._trouble(moment, None, largest)
        wrong = self._said_well(base, ended(forked(base, trouble)), (0, 2))
        return trouble.place, wrong + self._goes_on(base)

    def _power(self, base: Path, moment: random.Random, kind: str) -> tuple[str, list[str]]:
        place, disk = self._stopped(moment)
        disk.after_a_power_cut(base, moment)
        return place, self._goes_on(base)

    def _damage(self, base: Path, moment: random.Random, kind: str) -> tuple[str, list[str]]:
        """A bit flips in a file of a run that was killed or has ended, or the file is gone."""
        finished = moment.random() < 0.3
        disk = self._disk(len(self.ops)) if finished else self._stopped(moment)[1]
        disk.write_to(base)
        if finished:  # then it is exported once more
            shutil.rmtree(base / EXPORT)
        there = sorted(file for file in (base / RUN).rglob("*") if file.is_file() and file.stat().st_size)
        if not there:
            return "notes", self._goes_on(base)
        by_place = self._evenly([place_of(each.relative_to(base)) for each in there])
        place = moment.choice(sorted(by_place))
        file = there[moment.choice(by_place[place])]
        whole = file.read_bytes()
        if kind == "gone":
            file.unlink()
        else:
            bit, changed = moment.randrange(8 * len(whole)), bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
        name = str(file.relative_to(base))

        def mended() -> None:
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_bytes(whole)

        wrong = self._goes_on(base, mended)
        if finished or _EDITABLE.fullmatch(name):  # nobody reads it any more
            wrong = [each for each in wrong if not each.startswith(name)]
        return place, [f"{name}: {each}" for each in wrong]

    def _two(self, base: Path, moment: random.Random, kind: str) -> tuple[str, list[str]]:
        whom = moment.choice(((0,), (1,), (0, 1)))
        # The second process writes little: what the first does tells the moment of both.
        trouble = self._trouble(moment, moment.choice((signal.SIGKILL, signal.SIGTERM)))
        self._started_two(base, {each: trouble for each in whom})
        if 0 not in self._started_two(base):
            return trouble.place, [f"two processes did not go on: {self._said(base, 2)[-600:]}"]
        return trouble.place, differences(self._expected[2], alike(base))

    def _started_two(self, base: Path, troubles: dict[int, Trouble] | None = None) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            where = {"JAX_COORDINATOR_ADDRESS": f"localhost:{probe.getsockname()[1]}", "JAX_NUM_PROCESSES": 2}
        each = [forked(base, (troubles or {}).get(i), joined=where | {"JAX_PROCESS_ID": i}) for i in (0, 1)]
        return [ended(pid) for pid in each]

    def _said(self, base: Path, processes: int) -> str:
        return "\n".join((base / f"{i}.stderr.txt").read_text(errors="replace") for i in range(processes))

    def _goes_on(self, base: Path, mended: Callable | None = None) -> list[str]:
        """What is wrong after the same command again, as often as it takes; what it advises is done, else `mended`."""
        for _ in range(_AGAIN):
            status = ended(forked(base))
            if not status or mended is None:
                wrong = self._said_well(base, status, (0,))
                return wrong or differences(self._expected[1], alike(base))
            if wrong := self._said_well(base, status, (2,)):
                return wrong
            self._obeyed(base, mended)
        return [f"it had not ended after {_AGAIN} starts: {said(base)[-300:]}"]

    def _obeyed(self, base: Path, mended: Callable) -> None:
        for path in re.findall(r"delete (?:the directory )?(\S+?)[,;.]?(?:\s|$)", said(base)):
            if (target := base / path) != base and target.exists() and RUN in target.parts:
                shutil.rmtree(target) if target.is_dir() else target.unlink()
                return
        mended()

    def _said_well(self, base: Path, status: int, allowed: tuple[int, ...]) -> list[str]:
        """What is wrong with a status and with what was said on standard error."""
        words = said(base) if (base / "stderr.txt").exists() else ""
        wrong = [] if status in allowed else [f"status {status}: {words[-600:]}"]
        wrong += [f"a traceback: {words[-900:]}"] if "Traceback" in words else []
        complaints = [line for line in words.splitlines() if line.startswith("error: ")]
        return wrong + ([f"{len(complaints)} complaints"] if status == 2 and len(complaints) != 1 else [])

    def _trouble(self, moment: random.Random, signum: int | None, largest: int | None = None) -> Trouble:
        """At any place alike often, and there at any of its moments, until the next."""
        places = self._evenly([place for place, _ in self._moments])
        place = moment.choice(sorted(places))
        at = moment.randrange(len(places[place]))
        index = places[place][at]
        later = self._moments[index + 1][1] if index + 1 < len(self._moments) else self._moments[index][1]
        gap = min(later - self._moments[index][1], 0.5)
        return Trouble(place, at + 1, moment.choice((0.0, moment.uniform(0, gap))), signum, largest)

    def _stopped(self, moment: random.Random) -> tuple[str, Disk]:
        """The disk of the recorded run at any place alike often."""
        place = moment.choice(sorted(self._cuts))
        return place, self._disk(moment.choice(self._cuts[place]))

    def _disk(self, count: int) -> Disk:
        disk = Disk(self.whole)
        for op in self.ops[:count]:
            disk.apply(op, syncs=self._syncs)
        return disk

    @staticmethod
    def _evenly(places: list[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            if place:
                found.setdefault(place, []).append(number)
        return found


_campaign: Campaign | None = None  # in each worker


def _one(number: int) -> dict[str, Any]:
    return _campaign.one(number)


def main() -> int:
    global _campaign
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds of trouble, with commas")
    parser.add_argument("--one_process", action="store_true", help="no runs of two processes")
    parser.add_argument("--without_fsync", action="store_true")
    asked = parser.parse_args()
    base = asked.workdir.absolute()
    base.mkdir(parents=True, exist_ok=True)
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(base / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((CHECKOUT / "adaspec_jax").rglob("*.py"))))
    about = {"seed": asked.seed, "syncs": not asked.without_fsync, "code": code.hexdigest()}
    rows = base / ("runs_without_fsync.jsonl" if asked.without_fsync else "runs.jsonl")
    done = files.Journal(rows, about, what="campaign", mend="use another --workdir")
    _campaign = Campaign(base, seed=asked.seed, syncs=not asked.without_fsync)
    if not asked.one_process:
        _campaign.two()
    kinds = asked.only.split(",") if asked.only else None
    left = [n for n in range(asked.runs) if not kinds or KINDS[n % len(KINDS)] in kinds]
    left = sorted(set(left) - {row["number"] for row in done.rows})
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("fork")) as workers:
        for future in as_completed([workers.submit(_one, number) for number in left]):
            done.add(row := future.result())
            how = "; ".join(row["wrong"]) or "as it should"
            print(f"{row['number']:4d} {row['kind']:14} {row['place']:26} {how}", flush=True)
    return _told(done.rows, asked, _campaign.by)


def _told(rows: list[dict[str, Any]], asked: argparse.Namespace, by: str) -> int:
    failures = [row for row in rows if row["wrong"]]
    kinds, places = (dict(sorted(Counter(row[key] for row in rows).items())) for key in ("kind", "place"))
    result = {"runs": len(rows), "seed": asked.seed, "recorded by": by, "kinds": kinds, "places": places}
    result["failures"] = sorted(failures, key=lambda row: row["number"])
    print(json.dumps({**result, "failures": len(failures)}, indent=2))
    if asked.json:
        for row in result["failures"]:  # the whole of it is in the journal
            row["wrong"] = [each.strip().rpartition("\n")[2][-200:] for each in row["wrong"]]
        files.write_json(asked.json, result)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
