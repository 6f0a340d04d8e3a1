"""Requests whose kind of text changes half way: a draft that learns between them against the same draft, frozen.

    python benchmarks/online.py --workdir runs/online --json benchmarks/results/online.json

No data is needed, and about 25 minutes on two cores. A target is trained on two kinds of generated text, word problems
and the lines of receipts; a draft is distilled from it on word problems alone. Then requests come one by one, the first
half of word problems, the others of receipts, and every arm answers all of them, greedily: how many answers are plain
decoding's to the token is counted. What ended is not done again, and an arm goes on after the request that it had come
to.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from interleave import machine  # noqa: E402

from adaspec_jax import data, files  # noqa: E402
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate  # noqa: E402
from adaspec_jax.errors import UserError, exit_with_one_line  # noqa: E402
from adaspec_jax.measuring.pair import load_pair  # noqa: E402
from adaspec_jax.pipeline.learning import Learning, Pace  # noqa: E402
from adaspec_jax.reporting.statistics import Counts, paired, summarize  # noqa: E402

EXAMPLES = 2000  # of each kind, to train on
PLAIN, FROZEN = "plain", "frozen"
PER_REQUEST = ("accepted", "judged", "drafted", "committed", "rounds")
GOODS = "apples pears plums kites drums hats cups pens books nails ropes lamps boxes chairs coins bells".split()
TRAIN = [
    "--config",
    "configs/quickstart.py",
    "--config.evaluation.num_prompts=40",
    f"--config.data.num_train={EXAMPLES}",
]


class Arm(NamedTuple):
    """A way to answer: plain, with the frozen draft, or with one that learns at such tokens, so fast, so often."""

    name: str
    pace: Pace | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--window", type=int, default=100, help="requests that are counted together")
    parser.add_argument(
        "--arms",
        default="refused:1e-4,refused:1e-3,answers:1e-3",
        help="AT:RATE[:EVERY],...; the first is OSD's, every 8 requests",
    )
    parser.add_argument("--draft_length", type=int, default=5)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    arms = [Arm(PLAIN), Arm(FROZEN), *map(arm_of, args.arms.split(","))]
    if args.requests < 2 * args.window or args.requests % (2 * args.window):
        raise UserError(f"--requests is {args.requests}; give a multiple of two windows, which are {2 * args.window}")
    trained(args.workdir)
    pair = load_pair(str(args.workdir / "target/target"), str(args.workdir / "draft/reference"))
    prompts = prompts_of(pair[2], args.requests)
    rows = {arm.name: answered(args, arm, pair, prompts) for arm in arms}
    settings = {name: getattr(args, name) for name in ("requests", "window", "draft_length", "max_new_tokens")}
    report = {"settings": settings | {"temperature": 0.0}, "environment": machine() | {"jax": jax.__version__}}
    report["arms"] = {arm.name: figures(rows[arm.name], rows[FROZEN], args.window) for arm in arms[1:]}
    for name, of_arm in report["arms"].items():
        pairs = zip(rows[name], rows[PLAIN], strict=True)
        of_arm["identical_to_plain"] = sum(row["sum"] == plain["sum"] for row, plain in pairs)
    files.write_text(args.json, json.dumps(report, indent=1) + "\n")
    print(table(report))


def arm_of(text: str) -> Arm:
    at, *numbers = text.split(":")
    try:
        if at not in ("refused", "answers") or len(numbers) not in (1, 2):
            raise ValueError
        every = {} if len(numbers) == 1 else {"every": int(numbers[1])}
        return Arm(text, Pace(at=at, rate=float(numbers[0]), **every))
    except ValueError:
        raise UserError(f'--arms has "{text}"; give AT:RATE or AT:RATE:EVERY, as in refused:1e-4:8') from None


def receipts(number: int, seed: int) -> list[dict[str, str]]:
    """So many different ones, as rows of word problems have them."""
    dice, found = random.Random(seed), {}
    while len(found) < number:
        bought = [(dice.choice(GOODS), dice.randint(2, 9), dice.randint(2, 9)) for _ in range(dice.randint(2, 4))]
        asked = "; ".join(f"{count} {what} @ {price}" for what, count, price in bought)
        lines = [f"{what:<8}| {count} x {price} | {count * price}" for what, count, price in bought]
        total = sum(count * price for _, count, price in bought)
        found[f"RECEIPT {asked}"] = "\n".join([*lines, f"TOTAL   | {total}", f"#### {total}"])
    return [{"question": question, "answer": answer} for question, answer in found.items()]


def trained(workdir: Path) -> None:
    """A target of both kinds in workdir/target, a draft of word problems alone in workdir/draft."""
    kind = workdir / "receipts.jsonl"
    if not kind.exists():
        files.write_text(kind, "".join(json.dumps(row) + "\n" for row in receipts(EXAMPLES, 0)))
    both = [f"--config.data.mixture=('word_problems','{kind.resolve()}')", "--config.data.contamination=allow"]
    shortly = [
        f"--config.{stage}.{key}" for stage in ("reference", "draft") for key in ("epochs=0.02", "warmup_steps=0")
    ]
    _said([*TRAIN, "--workdir", str(workdir / "target"), *both, *shortly])
    target = ["--config.target.init=" + str((workdir / "target/target").resolve()), "--config.target.epochs=0"]
    target += ["--config.tokenizer.init=target", "--config.draft.epochs=0.02", "--config.draft.warmup_steps=0"]
    _said([*TRAIN, "--workdir", str(workdir / "draft"), *target])


def _said(words: list[str]) -> None:
    command = [sys.executable, "-m", "adaspec_jax.train", *words]
    print(" ".join(command), flush=True)
    if not (Path(words[words.index("--workdir") + 1]) / "report.json").exists():
        if status := subprocess.run(command, cwd=ROOT).returncode:
            raise SystemExit(status)  # it has said why


def prompts_of(tokenizer, number: int) -> list[list[int]]:
    """Requests nobody was trained on: word problems, then receipts."""
    problems = [example.prompt for example in data.load_examples("word_problems", "test", num=number // 2, seed=1)]
    known = {row["question"] for row in receipts(EXAMPLES, 0)}
    new = [row for row in receipts(2 * number, 1) if row["question"] not in known][: number - number // 2]
    file_of = [example.prompt for example in map(data.tasks.TASKS["word_problems"].format, new)]
    return [data.prompt_ids(text, tokenizer) for text in [*problems, *file_of]]


def answered(args: argparse.Namespace, arm: Arm, pair, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """What every request took this arm, a row each, from where its journal ends."""
    target, draft, _, ends = pair
    about = {"arm": arm.name, "draft_length": args.draft_length, "max_new_tokens": args.max_new_tokens}
    place, name = args.workdir / f"requests_{args.requests}", arm.name.replace(":", "_")
    place.mkdir(exist_ok=True)
    journal = files.Journal(place / f"{name}.jsonl", about, what="measurement", mend="give another --workdir")
    if len(journal.rows) >= len(prompts):
        return journal.rows[: len(prompts)]
    learns = Learning(place / name, target, draft, pace=arm.pace, say=lambda text: None) if arm.pace else None
    learning = 0.0  # seconds after the request before
    for number in range(learns.requests if learns else len(journal.rows), len(prompts)):
        drafter = NoDraft() if arm.name == PLAIN else ChainDrafter(learns.draft if learns else draft, args.draft_length)
        began, tokens = time.perf_counter(), prompts[number]
        how = {"max_new_tokens": args.max_new_tokens, "sampling": Sampling(temperature=0.0), "eos_id": ends}
        prompt = Context(np.asarray([tokens]), np.asarray([len(tokens)]))
        made = jax.device_get(generate(target, drafter, prompt, jax.random.key(0), **how))
        decoded = time.perf_counter()
        if number >= len(journal.rows):
            journal.add(row_of(number, made, len(tokens)) | {"seconds": decoded - began, "learning_before": learning})
        if learns:
            learns.add(made, [len(tokens)])
        learning = time.perf_counter() - decoded
        if number % args.window == args.window - 1:
            print(f"{arm.name}: {number + 1} of {len(prompts)} requests", flush=True)
    if learns:
        learns.close()
    return journal.rows


def row_of(number: int, made, start: int) -> dict[str, Any]:
    counts = {
        "accepted": made.accepted_BN,
        "judged": made.judged_BN,
        "drafted": made.drafted_B,
        "rounds": made.rounds_B,
    }
    counts = {name: int(np.sum(value)) for name, value in counts.items()}
    text = [int(token) for token in made.tokens_BS[0, start : made.lengths_B[0]]]
    return {"request": number, **counts, "committed": len(text), "sum": zlib.crc32(str(text).encode())}


def figures(rows: list[dict], frozen: list[dict], window: int) -> dict[str, Any]:
    """By window, and over each half: acceptance with its interval, tokens a target call, the gain over the frozen."""
    half = len(rows) // 2
    spans = [range(first, first + window) for first in range(0, len(rows), window)]
    found = {"windows": [_span(rows, frozen, span) for span in spans]}
    found |= {
        "word_problems": _span(rows, frozen, range(half)),
        "receipts": _span(rows, frozen, range(half, len(rows))),
    }
    found["seconds_decoding"] = sum(row["seconds"] for row in rows)
    return found | {"seconds_learning": sum(row["learning_before"] for row in rows)}


def _span(rows: list[dict], frozen: list[dict], span: range) -> dict[str, Any]:
    own, other = (_counts([of[n] for n in span]) for of in (rows, frozen))
    summary = summarize(own)
    kept = {name: summary[name] for name in ("alpha", "ci95", "accepted", "judged", "rounds", "block_efficiency")}
    return {"first": span[0], "last": span[-1], **kept, "over_frozen": paired(own, other)}


def _counts(rows: list[dict]) -> Counts:
    unasked = dict.fromkeys(("overlap_sum", "agreement_sum", "positions"), np.zeros(len(rows)))
    return Counts(**{name: np.array([row[name] for row in rows]) for name in PER_REQUEST}, **unasked)


def table(report: dict[str, Any]) -> str:
    """In Markdown: acceptance in percent, by window."""
    arms = report["arms"]
    lines = ["| requests | " + " | ".join(f"`{name}`" for name in arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for number, window in enumerate(next(iter(arms.values()))["windows"]):
        shown = [_percent(arm["windows"][number]) for arm in arms.values()]
        lines.append(f"| {window['first'] + 1} to {window['last'] + 1} | {' | '.join(shown)} |")
    for kind in ("word_problems", "receipts"):
        shown = [_percent(arm[kind]) + f", {arm[kind]['block_efficiency']:.2f} a call" for arm in arms.values()]
        lines.append(f"| all {kind} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _percent(figures: dict[str, Any]) -> str:
    low, high = (100 * end for end in figures["ci95"])
    return f"{100 * figures['alpha']:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    exit_with_one_line(main)
