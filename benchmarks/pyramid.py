"""PyramidSD on a family of three models trained here: speed and task score against both of its thresholds.

    python benchmarks/pyramid.py --workdir runs/pyramid --seeds 3 --json benchmarks/results/pyramid.json \\
        --svg docs/pyramid.svg

For every seed `configs/pyramid.py` is trained (DIR/seed0, ...) and `python -m adaspec_jax.benchmark` decodes held-out
problems by plain decoding, standard speculation with either draft, and PyramidSD at every pair of thresholds, in turn.
What has ended is not done again. Speeds are over standard speculation with the small draft, of the same process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
from charts import side_by_side  # noqa: E402

from adaspec_jax import files  # noqa: E402

FUZZY, ASSISTED = "pyramidsd_f", "pyramidsd_a"
STANDARD = "vanilla"
KEPT = ("tokens_per_target_call", "speedup", "speedup_ci95", "score", "identical_to_plain", "prompts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds_q", default="0.1,0.2,0.3,0.4")
    parser.add_argument("--thresholds_t", default="0.1,0.2,0.3,0.4,0.5")
    parser.add_argument("--num_prompts", type=int, default=100)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    args, training = parser.parse_known_args()
    args.workdir = args.workdir.resolve()
    found = [of_seed(args, seed, training) for seed in range(args.seeds)]
    report = {
        "settings": {"thresholds_q": args.thresholds_q, "thresholds_t": args.thresholds_t, "training": training},
        "environment": found[0]["environment"],
        "models": [each["models"] for each in found],
        "methods": over_seeds([each["methods"] for each in found]),
    }
    files.write_text(args.json, json.dumps(report, indent=1) + "\n")
    if args.svg:
        files.write_text(args.svg, drawn(report))
    print(table(report))


def of_seed(args: argparse.Namespace, seed: int, training: list[str]) -> dict:
    """One family's figures, trained and measured where they are not there yet."""
    run, part = args.workdir / f"seed{seed}", args.workdir / f"seed{seed}.json"
    config = ["--config", str(ROOT / "configs" / "pyramid.py"), f"--config.seed={seed}", *training]
    said([sys.executable, "-m", "adaspec_jax.train", *config, "--workdir", str(run)])
    models = json.loads((run / "report.json").read_text())["models"]
    sweeps = [
        f"--sweep={FUZZY}.threshold_q={args.thresholds_q}",
        f"--sweep={FUZZY}.threshold_t={args.thresholds_t}",
    ]
    sweeps += [f"--sweep={ASSISTED}.threshold_t={args.thresholds_t}"]
    if not part.exists():
        pair = ["--target", str(run / "target"), "--draft", str(run / "draft"), "--draft", str(run / "qualifier")]
        asked = ["--task", "word_problems", "--num_prompts", str(args.num_prompts), "--json", f"{part}.part"]
        methods = ["--methods", ",".join((STANDARD, FUZZY, ASSISTED))]
        said([sys.executable, "-m", "adaspec_jax.benchmark", *pair, *methods, *sweeps, *asked])
        files.write_text(part, Path(f"{part}.part").read_text())
    report = json.loads(part.read_text())
    asked = {"num_prompts": args.num_prompts, "sweep": [sweep.removeprefix("--sweep=") for sweep in sweeps]}
    if any(report["settings"][name] != value for name, value in asked.items()):
        raise SystemExit(f"{part} was measured with other settings; delete it, or choose another --workdir")
    methods = {"plain": report["plain"], **report["methods"]}
    kept = {name: {key: m.get(key) for key in KEPT} | {"knobs": m["knobs"]} for name, m in methods.items()}
    return {"models": models, "methods": kept, "environment": report["environment"]}


def said(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def over_seeds(seeds: list[dict]) -> dict:
    """By method its knobs, and for every seed what it scored and how fast it was."""
    found = {}
    for name, first in seeds[0].items():
        speeds = [each[name]["speedup"] / each[STANDARD]["speedup"] for each in seeds]
        found[name] = {
            "knobs": first["knobs"],
            "over_standard": speeds,
            "over_plain": [each[name]["speedup"] for each in seeds],
            "score": [each[name]["score"] for each in seeds],
            "tokens_per_target_call": [each[name]["tokens_per_target_call"] for each in seeds],
            "identical_to_plain": [each[name]["identical_to_plain"] for each in seeds],
            "prompts": first["prompts"],
        }
    return found


def table(report: dict) -> str:
    """In Markdown: means over the seeds, and their range."""

    def span(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
        values = [scale * value for value in values]
        return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    lines = ["| | over standard | over plain | tokens per target call | score, % |", "|---|---|---|---|---|"]
    for name, m in report["methods"].items():
        speeds = [span(m[key]) for key in ("over_standard", "over_plain", "tokens_per_target_call")]
        lines.append(f"| `{name}` | {' | '.join(speeds)} | {span(m['score'], 100, 1)} |")
    return "\n".join(lines)


def drawn(report: dict) -> str:
    """Speed and score against the outer threshold, a line for each inner one."""
    charts = []
    for method in (FUZZY, ASSISTED):
        here = {name: m for name, m in report["methods"].items() if name.partition("[")[0] == method}
        for key, label in (("over_standard", f"{method}: over standard speculation"), ("score", f"{method}: score")):
            lines: dict[str, list] = {}
            for m in here.values():
                inner = m["knobs"].get("threshold_q")
                line = "assisted" if inner is None else f"inner {inner:g}"
                lines.setdefault(line, []).append((m["knobs"]["threshold_t"], float(np.mean(m[key]))))
            charts.append(({line: sorted(points) for line, points in lines.items()}, "outer threshold", label))
    names = list(dict.fromkeys(line for series, _, _ in charts for line in series))
    colours = {line: f"s{n % 4}" for n, line in enumerate(names)}
    return side_by_side(charts, colours, title="Speed and score of PyramidSD against its thresholds")


if __name__ == "__main__":
    main()
