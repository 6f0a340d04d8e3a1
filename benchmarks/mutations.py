"""Faults of one line, drawn over all rooms: which of them do the tests catch?

    python benchmarks/mutations.py --seed 0 --count 40 --json OUT [--root CHECKOUT] [--before CHECKOUT]

A fault turns a comparison, moves a constant, swaps min with max, True with False, `and` with `or`, two arguments or an
axis, or drops a `not`. It is known by its function, the text of its line and the change, so that --before puts the same
faults, each found once in both checkouts, into the code before a move and after it. Each is written into a copy of its
checkout; the tests that import its file, the nearest and quickest first, run up to the first failure or to the limit,
in a child of a process that has imported jax already. The checkout of before is only asked of faults that are not
caught now: of others it could say nothing worse. What stands in OUT is not run again.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = "adaspec_jax"
COMPARISONS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
PAIRS = [pair.split() for pair in ("min max", "minimum maximum", "argmin argmax", "any all", "floor ceil")]
CAUGHT = ("caught", "hung or died")
TWINS = {name: twin for pair in PAIRS for name, twin in (pair, pair[::-1])}


class Fault(NamedTuple):
    function: str  # dotted; of a class or "" where it stands outside functions
    line: str  # stripped
    change: str
    path: str
    row: int  # from 0
    start: int  # in bytes of that row
    end: int
    text: str  # what comes there instead

    @property
    def name(self) -> tuple[str, str, str]:
        return self.function, self.line, self.change


def faults_of(source: str, path: str) -> Iterator[Fault]:
    rows = [row.encode() for row in source.splitlines()]

    def swap(function, first, last, pattern, text):
        """The fault that puts `text` for what the pattern finds between two places of one row, if it does."""
        (row, start), (last_row, end) = first, last
        found = row == last_row and re.search(pattern, rows[row - 1][start:end].decode())
        if found:
            begin, stop = (start + len(found.string[:at].encode()) for at in found.span())
            line = rows[row - 1].decode().strip()
            nth = rows[row - 1][:begin].decode().count(found[0]) + 1
            change = f"{found[0].strip()} -> {text.strip()}" + (f" ({nth})" if nth > 1 else "")
            yield Fault(function, line, change, path, row - 1, begin, stop, text)

    def visit(node, function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".strip(".")
        for change in _changes(node):
            yield from swap(function, *change)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params") or (
                isinstance(node, ast.JoinedStr) and name == "values"
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, function)

    yield from visit(ast.parse(source), "")


def _begin(node):
    return node.lineno, node.col_offset


def _end(node):
    return node.end_lineno, node.end_col_offset


def _changes(node) -> Iterator[tuple]:
    """(from, to, pattern, text): in each the pattern's match becomes the text."""
    match node:
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in SIGNS:
            yield _end(left), _begin(right), re.escape(SIGNS[type(sign)]), COMPARISONS[type(sign)]
        case ast.Compare(left=left, ops=[ast.Is() | ast.In() as sign], comparators=[right]):
            word = "is" if isinstance(sign, ast.Is) else "in"
            yield _end(left), _begin(right), rf"\b{word}\b", {"is": "is not", "in": "not in"}[word]
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
            if not any(isinstance(n, ast.JoinedStr) or isinstance(getattr(n, "value", 0), str) for n in (left, right)):
                yield _end(left), _begin(right), re.escape(ARITHMETIC[type(sign)][0]), ARITHMETIC[type(sign)][1]
        case ast.BoolOp(op=sign, values=[left, right, *_]):
            word, other = ("and", "or") if isinstance(sign, ast.And) else ("or", "and")
            yield _end(left), _begin(right), rf"\b{word}\b", other
        case ast.UnaryOp(op=ast.Not()):
            yield _begin(node), _end(node), r"^not ", ""
        case ast.Constant(value=bool() as value):
            yield _begin(node), _end(node), str(value), str(not value)
        case ast.Constant(value=int() as value):
            yield _begin(node), _end(node), r"^[\d_]+$", str(value + 1)
        case ast.Constant(value=float() as value):
            yield _begin(node), _end(node), r"^[\d_.e-]+$", repr(2 * value or 1.0)
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() as test):
            yield _begin(test), _end(test), r"^.+$", f"not {ast.unparse(test)}"
        case ast.keyword(arg="axis", value=value):
            other = "0" if ast.unparse(value) == "-1" else "-1"
            yield _begin(value), _end(value), r"^.+$", other
        case ast.Call(func=function, args=arguments):
            name = getattr(function, "attr", getattr(function, "id", ""))
            if name in TWINS:
                yield _begin(function), _end(function), rf"\b{name}$", TWINS[name]
            if len(arguments) > 1 and not any(isinstance(n, ast.Starred) for n in arguments[:2]):
                one, two = (ast.unparse(n) for n in arguments[:2])
                if one != two:
                    yield _begin(arguments[0]), _end(arguments[1]), r"^.+$", f"{two}, {one}"


def all_faults(root: Path) -> dict[tuple, Fault]:
    """By name; one that stands at two places of the checkout is none."""
    found = defaultdict(list)
    for file in sorted((root / PACKAGE).rglob("*.py")):
        for fault in faults_of(file.read_text(), str(file.relative_to(root))):
            found[fault.name].append(fault)
    return {name: faults[0] for name, faults in found.items() if len(faults) == 1}


def draw(faults: dict[tuple, Fault], count: int, seed: int) -> list[Fault]:
    """So many, from each folder of the package in turn."""
    rng, rooms = random.Random(seed), defaultdict(list)
    for name in sorted(faults):
        rooms[Path(faults[name].path).parts[1:-1][:1]].append(faults[name])
    shuffled = [rng.sample(found, len(found)) for _, found in sorted(rooms.items())]
    rng.shuffle(shuffled)
    turns = max(map(len, shuffled))
    return [found[turn] for turn in range(turns) for found in shuffled if turn < len(found)][:count]


def files_imported(file: Path, root: Path) -> set[Path]:
    """The checkout's files this one names: by import, or as a command in a string."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parent.parts
            above = [*package[: len(package) + 1 - node.level]] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and root / "tests" in file.parents:
            if re.fullmatch(r"(adaspec_jax\.)?\w+", node.value):
                names.add(f"{PACKAGE}.{node.value.removeprefix(PACKAGE + '.')}")
    bases = [root.joinpath(*name.split(".")) for name in names if name]
    return {path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}


def tests_of(fault: Fault, root: Path, seconds: dict[str, float]) -> list[str]:
    """The test files that reach the fault's file by imports, the nearest first and among equals the quickest."""
    arrows = {file: files_imported(file, root) for top in (PACKAGE, "tests") for file in (root / top).rglob("*.py")}
    away, edge = {root / fault.path: 0}, {root / fault.path}
    while edge:
        edge = {file for file, imported in arrows.items() if file not in away and imported & edge}
        away |= dict.fromkeys(edge, max(away.values()) + 1)
    tests = [file for file in away if file.name.startswith("test_")]
    tests.sort(key=lambda file: (away[file], seconds.get(file.stem, 10.0), str(file)))
    return [str(file.relative_to(root)) for file in tests]


class Notes:
    """A pytest plugin that writes down, one line at a time, which test began and which failed."""

    def __init__(self, file):
        self.file = file

    def pytest_runtest_logstart(self, nodeid):
        print("began", nodeid, file=self.file, flush=True)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            print("failed", report.nodeid, file=self.file, flush=True)

    def pytest_collectreport(self, report):
        if report.failed:
            print("failed", report.nodeid, file=self.file, flush=True)


def run_tests(root: Path, tests: list[str], limit: float) -> dict:
    """What became of these tests in a child of this process: survived, caught (and by which), hung, or out of time."""
    notes, began = root / "notes", time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(root)
        with open(notes, "w") as file, open(root / "output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.path[:0] = [str(root)]
            os.environ["PYTHONPATH"] = str(root)
            status = sys.modules["pytest"].main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[Notes(file)])
            print("ended", int(status), file=file, flush=True)
            os._exit(0)
    test, since = "", began
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() - began < limit:
        time.sleep(0.2)
        lines = notes.read_text().splitlines() if notes.exists() else []
        if lines and lines[-1] != test:
            test, since = lines[-1], time.monotonic()
    try:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    lines = [line.split(" ", 1) for line in notes.read_text().splitlines()] if notes.exists() else []
    failed = [name for word, name in lines if word == "failed"]
    ran, last = sum(word == "began" for word, _ in lines), lines[-1] if lines else ("", "")
    verdict = "out of time"
    if failed:
        verdict = "caught"
    elif last[0] == "ended":
        verdict = "survived" if last[1] in ("0", "5") else "caught"
    elif time.monotonic() - began < limit or time.monotonic() - since > limit / 2:
        verdict, failed = "hung or died", [last[1]]
    return {"verdict": verdict, "by": failed[:1], "tests_run": ran, "seconds": round(time.monotonic() - began, 1)}


def try_fault(fault: Fault, copy: Path, seconds: dict[str, float], limit: float) -> dict:
    """The verdict on one fault in a copy of a checkout, which is as before afterwards."""
    file = copy / fault.path
    whole = file.read_bytes()
    rows = whole.splitlines(keepends=True)
    row = rows[fault.row]
    rows[fault.row] = row[: fault.start] + fault.text.encode() + row[fault.end :]
    try:
        file.write_bytes(b"".join(rows))
        return {"path": fault.path} | run_tests(copy, tests_of(fault, copy, seconds), limit)
    finally:
        file.write_bytes(whole)


def seconds_by_file(junit: Path | None) -> dict[str, float]:
    found = Counter()
    for case in ET.parse(junit).iter("testcase") if junit else ():
        found[case.get("classname").rpartition(".")[2]] += float(case.get("time"))
    return found


def report_on(results: list[dict], whens: list[str], settings: dict) -> dict:
    verdicts = {when: Counter(entry[when]["verdict"] for entry in results if when in entry) for when in whens}
    survivors = {
        when: [
            " | ".join((entry[when]["path"], entry["function"], entry["line"], entry["change"]))
            for entry in results
            if when in entry and entry[when]["verdict"] not in CAUGHT
        ]
        for when in whens
    }
    return settings | {"verdicts": verdicts, "survivors": survivors, "faults": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=CHECKOUT)
    parser.add_argument("--before", type=Path, help="an earlier checkout: the same faults there")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of tests per fault")
    parser.add_argument("--junit", type=Path, help="an earlier run's junit.xml, for what is quick")
    args = parser.parse_args()
    roots = {"after": args.root.resolve()} | ({"before": args.before.resolve()} if args.before else {})
    found = {when: all_faults(root) for when, root in roots.items()}
    shared = {name: fault for name, fault in found["after"].items() if all(name in other for other in found.values())}
    settings = {"seed": args.seed, "limit": args.limit, "faults_to_draw_from": len(shared)}
    known = json.loads(args.json.read_text())["faults"] if args.json.exists() else []
    known = {(entry["function"], entry["line"], entry["change"]): entry for entry in known}
    seconds, results = seconds_by_file(args.junit), []

    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    for name in ("flax.linen", "optax", "orbax.checkpoint", "transformers", "pytest"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copies = {when: Path(folder) / when for when in roots}
        for when, root in roots.items():
            shutil.copytree(root, copies[when], ignore=shutil.ignore_patterns(".git", ".venv*", "runs", ".jax*"))
        for fault in draw(shared, args.count, args.seed):
            entry = known.get(fault.name) or dict(zip(("function", "line", "change"), fault.name, strict=True))
            for when, copy in copies.items():
                if when not in entry and entry.get("after", {}).get("verdict") not in CAUGHT:
                    entry[when] = try_fault(found[when][fault.name], copy, seconds, args.limit)
            results.append(entry)
            args.json.write_text(json.dumps(report_on(results, list(copies), settings), indent=1) + "\n")
            print(
                fault.path,
                fault.change,
                *(f"{when}: {entry[when]['verdict']}" for when in copies if when in entry),
                sep=" | ",
                flush=True,
            )


if __name__ == "__main__":
    main()
