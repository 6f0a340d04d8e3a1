"""Heads of every kind on one target, trained and decoded: the tables of docs/heads.md.

    python benchmarks/heads.py --config configs/stories_heads.py --plain configs/stories.py --workdir runs/heads \\
        --seeds eagle3=3,medusa=3 --json benchmarks/results/heads_stories.json -- --config.target.init=DIR

For every kind and seed the config is trained (DIR/KIND_seedN; the target's hidden states are stored once for all), with
plain distillation on equal data beside selection; with `--prompts` the kind's methods then decode in turn with plain
decoding. `--plain`: a draft that is a model, on the same prompts. What has ended is not done again, but for
decoding where other prompts or another number of tokens are asked for; what follows `--` is passed to every training.
Seconds of a run are those of all its sessions, but for one that was killed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaspec_jax import files  # noqa: E402
from adaspec_jax.command_line import load_config  # noqa: E402
from adaspec_jax.errors import UserError, exit_with_one_line  # noqa: E402
from adaspec_jax.models.heads import kinds  # noqa: E402

EQUAL_DATA = "reference_equal_data"
FIGURES = ("alpha", "ci95", "block_efficiency", "expected_alpha", "teacher_forced_agreement", "judged", "prompts")
DECODED = ("tokens_per_target_call", "ci95", "speedup", "speedup_ci95", "identical_to_plain", "prompts", "lossless")


def main() -> None:
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    passed = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a config whose variants are kinds")
    parser.add_argument("--kinds", default=",".join(kinds()), help="all kinds of heads unless some are named")
    parser.add_argument("--seeds", default="", help="KIND=NUMBER,...; one of the others")
    parser.add_argument("--plain", help="a config of a draft that is a model")
    parser.add_argument("--prompts", help="a file of prompts to decode by every method; without it nothing is")
    parser.add_argument("--max_new_tokens", type=int, default=96)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(own)
    args.workdir = args.workdir.resolve()
    args.workdir.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Any] = {}
    asked = wanted(args)
    for _, config, _ in asked:
        load_config(str(ROOT / config))  # a kind that is none is said before others are trained
    for name, config, seed in asked:
        runs[name] = trained(args, name, config, seed, passed)
        if args.prompts and seed == 0:
            runs[name]["decoded"] = decoded(args, name)
        report = {"settings": {"config": args.config, "passed": passed}, "runs": runs}
        files.write_text(args.json, json.dumps(report, indent=1) + "\n")
    print(table(runs))


def wanted(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(name, config, seed) of every run."""
    counts, kinds = dict.fromkeys(args.kinds.split(","), 1), args.kinds
    for part in filter(None, args.seeds.split(",")):
        kind, _, number = part.partition("=")
        if kind not in counts or not number.isdecimal() or number == "0":
            raise UserError(f'--seeds has "{part}"; give KIND=NUMBER,... of the kinds {kinds}, each from 1 on')
        counts[kind] = int(number)
    runs = [(f"{kind}_seed{n}", f"{args.config}:{kind}", n) for kind, number in counts.items() for n in range(number)]
    return [*runs, *([("model_seed0", args.plain, 0)] if args.plain else [])]


def trained(args: argparse.Namespace, name: str, config: str, seed: int, passed: list[str]) -> dict[str, Any]:
    """One run's figures, trained where it is not there yet."""
    directory = args.workdir / name
    keys = [f"--config.seed={seed}", "--config.reference.equal_data=True", *passed]
    if not config.startswith(args.plain or " "):
        keys.append(f"--config.teacher_store={args.workdir / 'store'}")
    began, kept, file = time.perf_counter(), directory / "seconds.json", directory / "report.json"
    before, ended = json.loads(kept.read_text()) if kept.exists() else 0.0, file.exists()
    try:
        said([sys.executable, "-m", "adaspec_jax.train", "--config", config, "--workdir", str(directory), *keys])
    finally:
        if directory.is_dir() and not ended:
            files.write_text(kept, json.dumps(before + time.perf_counter() - began))
    report = json.loads(file.read_text())
    drafts = {arm: {key: figures[key] for key in FIGURES} for arm, figures in report["drafts"].items()}
    return {
        "seed": seed,
        "parameters": report["models"]["draft"],
        "seconds": json.loads(kept.read_text()),
        "drafts": drafts,
        "paired": report["paired"],
        "speedup_of_a_chain": report["speed"]["draft"]["speedup"],
        "draft_length": report["speed"]["draft_length"],
        "environment": report["environment"],
    }


def decoded(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Every method of the kind on the prompts, with the draft that plain distillation on equal data made."""
    directory, path = args.workdir / name, args.workdir / f"{name}.json"
    kind = name.rpartition("_seed")[0]
    methods = {"eagle": "eagle_chain,eagle,eagle2", "model": "vanilla", "pard": "pard,vanilla"}
    methods |= dict.fromkeys(("dflash", "p_eagle"), kind)
    methods = methods.get(kind, f"{kind}_chain,{kind}")
    asked = {"prompts": args.prompts, "max_new_tokens": args.max_new_tokens, "methods": methods}
    report = json.loads(path.read_text()) if path.exists() else {"settings": {}}
    if any(report["settings"].get(key) != value for key, value in asked.items()):
        pair = ["--target", str(directory / "target"), "--draft", str(directory / EQUAL_DATA)]
        options = [word for key, value in asked.items() for word in (f"--{key}", str(value))]
        said([sys.executable, "-m", "adaspec_jax.benchmark", *pair, *options, "--json", f"{path}.part"])
        files.write_text(path, Path(f"{path}.part").read_text())
        report = json.loads(path.read_text())
    return {method: {key: m.get(key) for key in DECODED} for method, m in report["methods"].items()}


def said(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    if status := subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit(status)  # it has said why


def table(runs: dict[str, Any]) -> str:
    """In Markdown, a row per run: acceptance of each draft in percent, and what selection gained on equal data."""
    lines = ["| | parameters | seconds | untrained | plain | plain, equal data | selected | selection gains |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        shown = [_percent(run["drafts"][arm]) for arm in ("base", "reference", EQUAL_DATA, "draft")]
        pair = run["paired"][f"draft-{EQUAL_DATA}"]
        low, high = (100 * end for end in pair["ci95"])
        gain = f"{100 * pair['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        lines.append(f"| `{name}` | {run['parameters']:,} | {run['seconds']:.0f} | {' | '.join(shown)} | {gain} |")
    return "\n".join(lines)


def _percent(figures: dict[str, Any]) -> str:
    low, high = (100 * end for end in figures["ci95"])
    return f"{100 * figures['alpha']:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    exit_with_one_line(main)
