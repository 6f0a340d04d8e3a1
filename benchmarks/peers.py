"""Greedy decoding, ours beside other engines on this CPU, in turn; the text of each is compared with ours.

    python benchmarks/decode.py --peers --environments DIR --install openvino,ctranslate2 --json OUT.json
    python benchmarks/decode.py --peers --environments DIR --pair quickstart --json OUT.json
    python benchmarks/peers.py --environments DIR --target MODEL --engines openvino --json OUT.json

Each engine has an environment of its own, DIR/NAME, made by `--install` and used where it is there; one that is not
gets a row that says so. Each is a process that stands still while it is not its turn. Precisions: float32 and bfloat16
for all alike, and "default": what each engine does that is told nothing, ours in both types. Models are random pairs
(`pairs.py`) or `--target`, `--draft`, directories. A ratio is that of one turn's times, ours plain over the engine's;
figures are medians over the turns with the lowest and highest. Rows are written as they are measured: the same
command again goes on. Exit status 1 where float32 text differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "benchmarks"), str(CHECKOUT)]
from interleave import Ended, PausedWorker, machine  # noqa: E402
from peer_environments import OURS, PAIRS, PEERS, PLAIN, SPECULATIVE, Peer, last_line, models_of  # noqa: E402

from adaspec_jax.errors import UserError, did_you_mean, exit_with_one_line  # noqa: E402
from adaspec_jax.files import read_json, write_json  # noqa: E402

PRECISIONS = ("float32", "bfloat16", "default")
REFERENCE = "ours plain"
NO_BATCHES = "has no speculation in a batch"
LEAST_SECONDS = 0.5  # of whole answers in a turn
SETTINGS = ("pair", "target", "draft", "noise", "gamma", "new", "turns")


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what stands still is let go
    report = begun(args)
    for name in args.install:
        if PEERS[name].absent(args.environments) and (why := PEERS[name].install(args.environments)):
            print(f"{name} {why}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        models = models_of(args)
        for precision in args.precisions:
            measure(precision, [OURS, *(PEERS[name] for name in args.engines)], models, report, args, Path(folder))
    print(table(report["rows"]))
    if differing := [row for row in report["rows"] if row.get("text_differs") and row["precision"] == "float32"]:
        print("TEXT DIFFERS: " + "; ".join(f"{row['engine']}, {case_in_words(row)}" for row in differing))
        raise SystemExit(1)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="environments and models are kept below it")
    parser.add_argument("--install", default="", help=f"of {', '.join(PEERS)}: those to install where they are not")
    parser.add_argument("--engines", default=",".join(PEERS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--modes", default=f"{PLAIN},{SPECULATIVE}")
    parser.add_argument("--pair", default="160m", choices=PAIRS)
    parser.add_argument("--target", type=Path, help="a Hugging Face directory, instead of a random pair")
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--noise", type=float, default=0.1, help="as in decode.py")
    parser.add_argument("--gamma", type=int, default=5)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--prompt", default="32,512")
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    known = {"install": PEERS, "engines": PEERS, "precisions": PRECISIONS, "modes": (PLAIN, SPECULATIVE)}
    for option, names in known.items():
        given = [name for name in getattr(args, option).split(",") if name]
        for name in given:
            if name not in names:
                raise UserError(f'--{option}: there is no "{name}"{did_you_mean(name, names)}')
        setattr(args, option, given)
    sizes = {
        option: [int(n) if n.isdecimal() else 0 for n in getattr(args, option).split(",")]
        for option in ("batch", "prompt")
    }
    if min(*sizes["batch"], *sizes["prompt"], args.new, args.turns) < 1:
        raise UserError("--batch, --prompt, --new and --turns must be at least 1, the former two one number or several")
    args.cases = [(batch, prompt) for prompt in sizes["prompt"] for batch in sizes["batch"]]
    if args.draft and not args.target:
        raise UserError("--draft goes with --target")
    for path in filter(None, (args.target, args.draft)):
        if not (path / "config.json").is_file():
            raise UserError(f"{path} has no config.json: it is not a Hugging Face model directory")
    return args


def begun(args) -> dict:
    """The report so far; UserError where it was made by other code, on another machine, or with other settings."""
    settings = {name: str(getattr(args, name)) for name in SETTINGS} | {"code": digest_of_the_package()}
    report = {"settings": settings, "machine": machine(), "rows": []}
    if not args.json.is_file():
        return report
    before = read_json(args.json, mend="give another --json")
    for part in ("settings", "machine"):
        if differing := [name for name in report[part] if before[part].get(name) != report[part][name]]:
            raise UserError(f"{args.json} was measured with another {differing[0]}; give another --json")
    return before


def digest_of_the_package() -> str:
    """Of the sources, so that a run is not gone on with by other code."""
    files = sorted((CHECKOUT / "adaspec_jax").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measure(precision: str, peers: list[Peer], models: dict, report: dict, args, folder: Path) -> None:
    """The cases of one precision that are not measured yet; every row goes to the report at once."""
    absent = {peer.name: why for peer in peers if (why := peer.absent(args.environments))}
    contestants = [(peer, mode, kind) for peer in peers for mode, kind in settings_of(peer, precision, models, args)]
    names = {name_of(*contestant, precision) for contestant in contestants if contestant[0].name not in absent}
    left = [case for case in args.cases if not done(report["rows"], names, precision, case)]
    if not left:
        return
    every = [name_of(*contestant, precision) for contestant in contestants]
    prompts, room = prompts_of(models["target"], left)
    for case in [case for case in left if case[1] + args.new > room]:
        left.remove(case)
        why = {"skipped": f"the target's context is {room} tokens"}
        record(report, precision, case, dict.fromkeys(every, why), args.json)
    if not left:
        return
    cases = {case: {"prompts": prompts[case], "new": args.new} for case in left}
    workers, failed = {}, {}
    try:
        for peer, mode, kind in contestants:
            name = name_of(peer, mode, kind, precision)
            try:
                if peer.name in absent:
                    raise RuntimeError(absent[peer.name])
                able = {case: wanted if can(peer, mode, case) else None for case, wanted in cases.items()}
                if any(able.values()):
                    workers[name] = started(name, peer, mode, kind, models, args, folder, [*able.values()])
            except RuntimeError as error:
                failed[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)
        for number, case in enumerate(left):
            unable = {name_of(*c, precision): NO_BATCHES for c in contestants if not can(*c[:2], case)}
            rows = in_turn(workers, failed | unable, number, case, args)
            record(report, precision, case, {name: rows[name] for name in every}, args.json)
    finally:
        for worker in workers.values():
            worker.stop()


def record(report: dict, precision: str, case: tuple[int, int], rows: dict[str, dict], path: Path) -> None:
    """Rows of one case, written at once; they take the place of what these engines had there."""
    key = {"precision": precision, "batch": case[0], "prompt": case[1]}

    def stays(row: dict) -> bool:
        return row["engine"] not in rows or any(row[name] != value for name, value in key.items())

    report["rows"] = [row for row in report["rows"] if stays(row)]
    report["rows"] += [{"engine": name, **key, **row} for name, row in rows.items()]
    write_json(path, report)


def can(peer: Peer, mode: str, case: tuple[int, int]) -> bool:
    return mode == PLAIN or peer.speculates_in_batches or case[0] == 1


def settings_of(peer: Peer, precision: str, models: dict, args) -> list[tuple[str, str]]:
    """[(mode, what its worker is told)]; ours has no setting that it would choose itself, so there it is both types."""
    modes = [mode for mode in peer.modes if mode in args.modes and (mode == PLAIN or "draft" in models)]
    if peer is OURS and PLAIN not in modes:
        modes = [PLAIN, *modes]  # what all are compared with
    kinds = ["float32", "bfloat16"] if peer is OURS and precision == "default" else [precision]
    return [(mode, kind) for kind in kinds for mode in modes]


def name_of(peer: Peer, mode: str, kind: str, precision: str) -> str:
    told = kind if peer is OURS and precision == "default" and kind != "float32" else ""
    return " ".join(filter(None, (peer.name, mode, told)))


def done(rows: list[dict], names: set[str], precision: str, case: tuple[int, int]) -> bool:
    """Whether all engines that could be asked were asked."""
    at = [row for row in rows if (row["precision"], row["batch"], row["prompt"]) == (precision, *case)]
    return bool(at) and names <= {row["engine"] for row in at if not row.get("skipped", "").startswith("not installed")}


def prompts_of(target: Path, cases: list[tuple[int, int]]) -> tuple[dict, int]:
    """{case: ids of every row}, drawn evenly, and the target's context."""
    import numpy as np

    hf = json.loads((target / "config.json").read_text())
    rng = np.random.default_rng(0)
    drawn = {case: rng.integers(1, hf["vocab_size"], case).tolist() for case in cases}
    return drawn, hf.get("max_position_embeddings", hf.get("n_positions", 1024))


def started(name, peer: Peer, mode: str, kind: str, models: dict, args, folder: Path, cases: list) -> PausedWorker:
    """Its worker, warmed up; RuntimeError with its last line where it ends."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(cases))
    ready = {role: peer.converted(path, args.environments) for role, path in models.items()}
    command = [str(peer.worker), peer.name, f"--target={ready['target']}", f"--cases={file}"]
    command += [f"--precision={kind}", f"--gamma={args.gamma}"]
    command += [f"--draft={ready['draft']}"] if mode == SPECULATIVE else []
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        try:
            python = peer.python(args.environments)
            return PausedWorker(name, command, peer.variables(args.environments), python=python, stderr=errors)
        except Ended as end:
            raise RuntimeError(f"did not start: {last_line(log.read_text()) or end}") from None


def in_turn(workers: dict, failed: dict, number: int, case: tuple[int, int], args) -> dict[str, dict]:
    """{engine: its row} of one case: every engine's whole answers and first tokens, turn by turn."""
    rows = {name: {"skipped": why} for name, why in failed.items()}
    turning, before = [worker for name, worker in workers.items() if name not in rows], os.getloadavg()[0]
    times = {worker.name: repeats(worker, number) for worker in turning}
    rows_of: dict[str, dict[str, list]] = {worker.name: {"whole": [], "first": []} for worker in turning}
    for turn in range(args.turns):
        for worker in turning if turn % 2 == 0 else turning[::-1]:
            for what, found in rows_of[worker.name].items():
                found.append(asked(worker, number, what, times[worker.name]))
        print(f"batch {case[0]}, prompt {case[1]}: turn {turn + 1}/{args.turns}", file=sys.stderr, flush=True)
    ours = rows_of[REFERENCE]["whole"]
    for worker in turning:
        found = figures(**rows_of[worker.name], ours=ours, tokens=case[0] * args.new)
        rows[worker.name] = found | {"times_a_turn": times[worker.name], "load_before": before, **worker.ready}
    return rows


def asked(worker: PausedWorker, number: int, what: str, times: int = 1) -> dict:
    """What a worker says of a case done so many times, its seconds those of one."""
    command = f"{number} {what} {times}"
    worker.unit(command)
    row = worker.others[command].pop()
    return row | {"seconds": row["seconds"] / times}


def repeats(worker: PausedWorker, number: int) -> int:
    """How often its units of a case do it, so that a short one can be timed."""
    return max(1, round(LEAST_SECONDS / asked(worker, number, "whole")["seconds"]))


def figures(whole: list[dict], first: list[dict], *, ours: list[dict], tokens: int) -> dict:
    """One engine's figures, and over the turns of one case its times against ours."""
    seconds = [row["seconds"] for row in whole]
    ratios = [own["seconds"] / row["seconds"] for own, row in zip(ours, whole, strict=True)]
    same = sum(a == b for a, b in zip(whole[-1]["tokens"], ours[-1]["tokens"], strict=True))
    return {
        "tokens_per_second": tokens / statistics.median(seconds),
        "seconds": spread(seconds),
        "first_token_seconds": spread([row["seconds"] for row in first]),
        "times_ours_plain": spread(ratios),
        "same_text": f"{same} of {len(ours[-1]['tokens'])}",
        "text_differs": same < len(ours[-1]["tokens"]),
        "turns": len(whole),
        "other_cores": statistics.median(row["other_cores"] for row in whole),
        "peak_mb": whole[-1]["peak_mb"],
    }


def spread(values: list[float]) -> list[float]:
    """Median, lowest, highest."""
    return [statistics.median(values), min(values), max(values)]


def case_in_words(row: dict) -> str:
    return f"{row['precision']}, batch {row['batch']}, prompt {row['prompt']}"


def table(rows: list[dict]) -> str:
    lines, at = [], None
    for row in rows:
        if case_in_words(row) != at:
            at = case_in_words(row)
            lines.append(f"{at:40}{'tokens/s':>10}{'times ours plain':>24}{'first, s':>10}  text, load")
        if "skipped" in row:
            lines.append(f"  {row['engine']:38}{row['skipped']}")
            continue
        ratio, first = "{:.2f} ({:.2f} to {:.2f})".format(*row["times_ours_plain"]), row["first_token_seconds"][0]
        said = f"{row['same_text']}{' DIFFERS' if row['text_differs'] else ''}, {row['other_cores']:.2f}"
        lines.append(f"  {row['engine']:38}{row['tokens_per_second']:10.1f}{ratio:>24}{first:10.3f}  {said}")
    return "\n".join(lines)


if __name__ == "__main__":
    exit_with_one_line(main)
