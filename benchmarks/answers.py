"""Two runs that differ in whose answers were learnt: the same drafts compared, prompt by prompt.

    python -m adaspec_jax.train --config configs/chat_small.py:dataset --workdir runs/chat_dataset
    python -m adaspec_jax.train --config configs/chat_small.py --workdir runs/chat_own \\
        --config.reference.epochs=0.8909 --config.draft.epochs=0.8909
    python benchmarks/answers.py --runs runs/chat_dataset runs/chat_own --json benchmarks/results/chat_small.json

Differences are the second run's minus the first's, with the report's own paired bootstrap and permutation test.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adaspec_jax import reporting  # noqa: E402

KEPT = ("settings", "environment", "data", "models", "stages", "drafts", "paired", "speed")


def compared(runs: list[Path]) -> dict:
    """{"runs": {name: report}, "paired": {draft: difference}}; ValueError where the prompts are not the same."""
    reports = [json.loads((run / "report.json").read_text()) for run in runs]
    prompts = {report["data"]["evaluation"]["examples_sha256"] for report in reports}
    if len(prompts) != 1:
        raise ValueError("the two runs were not measured on the same prompts")
    counts = [json.loads((run / "counts.json").read_text()) for run in runs]
    shared = [name for name in counts[0] if name in counts[1] and name != "base"]
    first, second = ({name: reporting.Counts(**each[name]) for name in shared} for each in counts)
    return {
        "runs": {run.name: {key: report[key] for key in KEPT} for run, report in zip(runs, reports, strict=True)},
        "paired": {name: reporting.paired(second[name], first[name]) for name in shared},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs=2, required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    found = compared(arguments.runs)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    for name, difference in found["paired"].items():
        low, high = (100 * end for end in difference["ci95"])
        print(f"{name}: {100 * difference['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
