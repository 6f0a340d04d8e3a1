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
KEPT = ("over_standard", "tokens_per_target_call", "speedup", "speedup_ci95", "score", "identical_to_plain", "prompts")


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
    if not part.exists():
        pair = ["--target", str(run / "target"), "--draft", str(run / "draft"), "--draft", str(run / "qualifier")]
        asked = ["--task", "word_problems", "--num_prompts", str(args.num_prompts)]
        found = [benchmarked(part, name, sweeps, [*pair, *asked]) for name, sweeps in parts_of(args).items()]
        # Plain decoding and standard speculation are in every part, as what its speeds are measured against.
        methods = {name: m for report in reversed(found) for name, m in over_its_own_standard(report).items()}
        files.write_text(part, json.dumps(found[0] | {"methods": methods, "asked": asked_of(args)}))
    report = json.loads(part.read_text())
    if report["asked"] != asked_of(args):
        raise SystemExit(f"{part} was measured with other settings; delete it, or choose another --workdir")
    methods = {"plain": report["plain"] | {"over_standard": 1 / report["methods"][STANDARD]["speedup"]}}
    methods |= report["methods"]
    kept = {name: {key: m.get(key) for key in KEPT} | {"knobs": m["knobs"]} for name, m in methods.items()}
    return {"models": models, "methods": kept, "environment": report["environment"]}


def asked_of(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in ("num_prompts", "thresholds_q", "thresholds_t")}


def parts_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """What each process measures: few methods, because a process may map only so many compiled programs."""
    outer = f"threshold_t={args.thresholds_t}"
    parts = {q: [f"{FUZZY}.threshold_q={q}", f"{FUZZY}.{outer}"] for q in args.thresholds_q.split(",")}
    return {f"{FUZZY} {q}": sweeps for q, sweeps in parts.items()} | {ASSISTED: [f"{ASSISTED}.{outer}"]}


def benchmarked(part: Path, name: str, sweeps: list[str], asked: list[str]) -> dict:
    """One process' report, measured where it is not there yet."""
    path = part.with_name(f"{part.stem}+{name.replace(' ', '_')}.json")
    if not path.exists():
        methods = ["--methods", f"{STANDARD},{name.partition(' ')[0]}", *(f"--sweep={sweep}" for sweep in sweeps)]
        said([sys.executable, "-m", "adaspec_jax.benchmark", *asked, *methods, "--json", f"{path}.part"])
        files.write_text(path, Path(f"{path}.part").read_text())
    return json.loads(path.read_text())


def over_its_own_standard(report: dict) -> dict:
    standard = report["methods"][STANDARD]["speedup"]
    return {name: m | {"over_standard": m["speedup"] / standard} for name, m in report["methods"].items()}


def said(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def over_seeds(seeds: list[dict]) -> dict:
    """By method its knobs, and for every seed what it scored and how fast it was."""
    found = {}
    for name, first in seeds[0].items():
        found[name] = {
            "knobs": first["knobs"],
            "over_standard": [each[name]["over_standard"] for each in seeds],
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
    return side_by_side(charts, title="Speed and score of PyramidSD against its thresholds")


if __name__ == "__main__":
    main()
