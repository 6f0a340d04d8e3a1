"""The losses of the draft stage with the teacher store and without it, step by step on the same batches.

    python benchmarks/curves.py --json benchmarks/results/curves.json

Models and data of `configs/gsm8k_small.py`, random weights; 200 steps of selective distillation with frozen models at
every step, with hidden states stored, and with the 64 likeliest tokens stored (another loss, for comparison).
`--task word_problems` needs no data. With target and reference of a finished run, whose losses are those of training:

    python benchmarks/curves.py --trained runs/quickstart --config configs/quickstart.py --choices recompute hidden \
        --json benchmarks/results/curves_quickstart.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
import pipeline  # noqa: E402
from interleave import machine  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", help="another task than the config's")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--trained", type=Path, help="a finished run of that config")
    parser.add_argument("--choices", nargs="+", default=["recompute", "hidden", "top_k"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.epochs = 10.0
    with tempfile.TemporaryDirectory() as folder:
        pipeline.write_weights(args, Path(folder))
        for name in ("target", "reference") if args.trained else ():
            for directory in (Path(folder, name), Path(folder, "run", name)):
                shutil.copytree(args.trained / name, directory, dirs_exist_ok=True)
        losses = {choice: curve(args, choice) for choice in args.choices}
    first = np.array(losses[args.choices[0]])
    apart = {name: float(np.max(np.abs(np.array(losses[name]) / first - 1))) for name in args.choices[1:]}
    for step in range(0, args.steps, max(args.steps // 10, 1)):
        print(f"step {step + 1:4}  " + "  ".join(f"{choice} {losses[choice][step]:.6f}" for choice in losses))
    print(f"greatest relative difference from {args.choices[0]}: {json.dumps(apart)}")
    if args.json:
        settings = {"config": str(args.config), "trained": bool(args.trained), "task": args.task, "steps": args.steps}
        report = {"settings": settings, "machine": machine(), "greatest_relative_difference": apart, "losses": losses}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def curve(args, choice: str) -> list[float]:
    from adaspec_jax.training import Batch

    config = pipeline.experiment(args)
    config.teacher = choice
    text, store, _, step, state, frozen = pipeline.our_stage(args, config)
    losses = []
    _, batches = pipeline.batches_of(config, text, store)
    for _ in range(args.steps):
        state, metrics = step(state, frozen, Batch(**next(batches)))
        losses.append(float(metrics["loss"]))
    if store:
        shutil.rmtree(store.path, ignore_errors=True)
    return losses


if __name__ == "__main__":
    main()
