"""Every method on one pair, a few at a time and resumable: the tables of docs/who_wins.md.

    python benchmarks/methods.py questions --spec_bench question.jsonl --mbpp mbpp.jsonl --out questions.jsonl
    python benchmarks/methods.py measure --workdir runs/methods --json benchmarks/results/methods_smollm2_short.json \\
        -- --target DIR --draft DIR --datastore DIR --prompts questions.jsonl --chat --max_new_tokens 64
    python benchmarks/methods.py show benchmarks/results/methods_smollm2_short.json

What follows `--` is passed to `python -m adaspec_jax.benchmark`, which decodes with plain decoding and `--group`
methods in turn, in a process of its own; one that has ended is not run again, and methods that --json has are left out,
so that a table goes on where it was interrupted, or where methods are new.
`questions` writes some of each of Spec-Bench's six categories, and MBPP's test problems as a seventh.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adaspec_jax import data, files  # noqa: E402
from adaspec_jax.data.prompts import MULTI_TURN, as_one  # noqa: E402
from adaspec_jax.data.rows import read_rows  # noqa: E402
from adaspec_jax.measuring.records import sums_of  # noqa: E402
from adaspec_jax.methods import METHODS  # noqa: E402

LEFT_OUT = ("requests", "batch_sizes", "vllm")  # of a method's figures: what others are sums of


def questions(args: argparse.Namespace) -> None:
    """The first `--per_category` questions of each category whose first turn is neither too long nor too short."""
    rows = read_rows(args.spec_bench, ())[0]
    one = as_one(row["category"] for row in rows)
    kept: dict[str, list[dict]] = {}
    for row in rows:
        category = MULTI_TURN if row["category"] in one else row["category"]
        if args.least_characters <= len(row["turns"][0]) <= args.most_characters:
            asked = {"turns": row["turns"][: args.turns]}
            kept.setdefault(category, []).append({name: row[name] for name in ("question_id", "category")} | asked)
    problems = data.load_examples("mbpp", "test", path=args.mbpp, num=args.per_category).examples
    code = [{"question_id": f"mbpp {n}", "turns": [problem.prompt]} for n, problem in enumerate(problems)]
    kept["code"] = [row | {"category": "code"} for row in code]
    talks = kept.get(MULTI_TURN, [])
    kept[MULTI_TURN] = talks[:: max(-(-len(talks) // args.per_category), 1)]  # of all subjects, which stand in order
    wanted = args.categories.split(",") if args.categories else list(kept)
    chosen = [row for category in wanted for row in kept[category][: args.per_category]]
    args.out.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    print(f"{args.out}: {len(chosen)} questions of {', '.join(wanted)}")


def measure(args: argparse.Namespace) -> None:
    """What is in `--json` stays; parts of `--workdir` that are not in it yet are taken from there."""
    names = [name for name in METHODS if name != "plain"] if args.methods == "all" else args.methods.split(",")
    kept = json.loads(args.json.read_text()) if args.json.is_file() else {"parts": [], "methods": {}}
    left = [name for name in names if name not in kept["methods"]]
    args.workdir.mkdir(parents=True, exist_ok=True)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(left), args.group):
        part = left[start : start + args.group]
        path = args.workdir / f"{'+'.join(part)}.json"
        command = [sys.executable, "-m", "adaspec_jax.benchmark", "--methods", ",".join(part), *args.passed]
        if not path.exists():
            print(" ".join(command), flush=True)
            load = os.getloadavg()[0]
            subprocess.run([*command, "--json", f"{path}.part"], check=True)
            report = json.loads(Path(f"{path}.part").read_text()) | {"load_before": load}
            files.write_text(path, json.dumps(report))
        kept = with_part(kept, json.loads(path.read_text()), args.json)
        files.write_text(args.json, json.dumps(kept, indent=1) + "\n")


def with_part(kept: dict, report: dict, where: Path) -> dict:
    """The figures with another process's, each beside plain decoding's of its own; refused for another measurement."""
    settings = report["settings"]
    shown = {name: value for name, value in settings.items() if name not in ("methods", "json", "svg", "measured")}
    for option in ("target", "draft", "datastore", "prompts"):
        given = shown.get(option)
        shown[option] = [Path(one).name for one in given] if isinstance(given, list) else given and Path(given).name
    same = {"settings": shown, "target_sha256": sums_of(settings["target"])}
    same["prompts_sha256"] = files.sha256(Path(settings["prompts"])) if settings["prompts"] else None
    if differing := [name for name in same if _set(kept.get(name, same[name])) != _set(same[name])]:
        raise SystemExit(
            f"{where} holds figures of another measurement ({', '.join(differing)}); choose another --json"
        )
    plain, methods = report["plain"]["tokens_per_second"], {}
    for name, m in report["methods"].items():
        figures = {key: value for key, value in m.items() if key not in LEFT_OUT}
        methods[name] = figures | ({} if "skipped" in m else {"plain_tokens_per_second": plain})
    part = {
        "methods": list(methods),
        "environment": report["environment"],
        "load_before": report["load_before"],
        "plain_tokens_per_second": plain,
        "drafts_sha256": [sums_of(draft) for draft in settings["draft"]],
    }
    return {**same, "parts": [*kept["parts"], part], "methods": {**kept["methods"], **methods}}


def _set(values: Any) -> Any:
    """Without options that were left alone: there may be new ones since."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if value not in (None, [], False)}


def show(args: argparse.Namespace) -> None:
    """The figures as tables of Markdown, the fastest first; speed-ups by category where requests came alone.

    What a round costs, in plain steps, is its tokens over the speed-up: drafting and verification together.
    """
    for path in args.results:
        found = json.loads(path.read_text())["methods"]
        there = {name: m for name, m in found.items() if "skipped" not in m}
        categories = list(dict.fromkeys(name for m in there.values() for name in m["categories"] if len(there)))
        columns = ["", "tokens per target call", "a round costs", "speed-up", *categories, "text"]
        print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        for name, m in sorted(there.items(), key=lambda item: -item[1]["speedup"]):
            calls = f"{m['tokens_per_target_call']:.2f} ({' to '.join(f'{x:.2f}' for x in m['ci95'])})"
            speed = f"{m['speedup']:.2f} ({' to '.join(f'{x:.2f}' for x in m['speedup_ci95'])})"
            cost = f"{m['tokens_per_target_call'] / m['speedup']:.1f}"
            parts = [f"{m['categories'][each]['speedup']:.2f}" for each in categories]
            same = m["identical_to_plain"]
            text = "lossy" if not m["lossless"] else "drawn" if same is None else f"{same} of {m['prompts']}"
            warm = m["warm"] and f"; warm {m['warm']['tokens_per_target_call']:.2f}, {m['warm']['speedup']:.2f}"
            print(f"| `{name}` | {' | '.join([calls, cost, speed + (warm or ''), *parts, text])} |")
        for name, m in found.items():
            if "skipped" in m:
                print(f"\n`{name}`: {m['skipped']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    asking = actions.add_parser("questions")
    asking.add_argument("--spec_bench", type=Path, required=True)
    asking.add_argument("--mbpp", type=Path, required=True)
    asking.add_argument("--per_category", type=int, default=5)
    asking.add_argument("--least_characters", type=int, default=0, help="of the first turn")
    asking.add_argument("--most_characters", type=int, default=3000)
    asking.add_argument("--turns", type=int, default=2, help="at most so many of a conversation")
    asking.add_argument("--categories", help="with commas between them (default: all)")
    asking.add_argument("--out", type=Path, required=True)
    asking.set_defaults(run=questions)
    measuring = actions.add_parser("measure")
    measuring.add_argument("--methods", default="all")
    measuring.add_argument("--group", type=int, default=4, help="methods in one process")
    measuring.add_argument("--workdir", type=Path, required=True, help="where the parts lie")
    measuring.add_argument("--json", type=Path, required=True)
    measuring.set_defaults(run=measure)
    showing = actions.add_parser("show")
    showing.add_argument("results", type=Path, nargs="+")
    showing.set_defaults(run=show)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:at])
    args.passed = sys.argv[at + 1 :]
    args.run(args)


if __name__ == "__main__":
    main()
