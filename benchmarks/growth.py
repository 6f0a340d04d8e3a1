"""How a training step and decoding grow, one size at a time from a common start; JSON and a plot.

    python benchmarks/growth.py --json benchmarks/results/growth.json --svg docs/growth.svg

Steps start from `train_step.py`'s sizes (31M draft, 160M target, 8 x 128 tokens, 50,304 entries), decoding from
`decode.py`'s (batch 1, a prompt of 64, 64 new tokens). Points that the JSON has already are kept, so that a run can be
cut short and resumed. Needs the `parity` extra for the PyTorch lines; `--only` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
import decode  # noqa: E402
import train_step  # noqa: E402
from charts import side_by_side  # noqa: E402
from interleave import Worker, interleave, machine, stop  # noqa: E402
from pairs import SHAPES, matched_pair, parameters  # noqa: E402

STEP = {"draft": "31m", "target": "160m", "batch": 8, "length": 128, "supervised": 0.6, "vocab_size": 50304}
DECODE = {"target": "160m", "draft": "31m", "gamma": 5, "batch": 1, "prompt": 64, "new": 64}
STEPS = ("torch, heap kept", "ours, recompute", "ours, stored")
DECODERS = ("ours plain", "ours speculative")
AXES = {  # kind, size, values; what PyTorch's whole logits make too big for this class of machine is left out for it
    "step: tokens per row": ("step", "length", (128, 256, 512, 1024, 2048)),
    "step: vocabulary": ("step", "vocab_size", (8192, 50304, 152064)),
    "step: rows": ("step", "batch", (4, 8, 16)),
    "step: target": ("step", "target", ("70m", "160m", "410m")),
    "decoding: rows": ("decode", "batch", (1, 2, 4, 8)),
    "decoding: prompt": ("decode", "prompt", (64, 256, 1024)),
}
MOST_LOGITS_OF_PYTORCH = 2.2e8  # batch * length * vocabulary: about 10 GB with its copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[*STEPS, *DECODERS])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    report = json.loads(args.json.read_text()) if args.json.is_file() else {"machine": machine(), "points": []}
    report["from"] = {"step": STEP, "decode": DECODE}
    known = {(point["axis"], point["value"]) for point in report["points"]}
    for axis, (kind, size, values) in AXES.items():
        for value in values:
            if (axis, value) in known:
                continue
            sizes = (STEP if kind == "step" else DECODE) | {size: value}
            results = (step_point if kind == "step" else decode_point)(sizes, args)
            found = {name: {key: row[key] for key in ("seconds", "peak_mb")} for name, row in results.items()}
            report["points"].append({"axis": axis, "value": value, "results": found})
            print(axis, value, json.dumps(found), flush=True)
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.svg:
        args.svg.write_text(drawn(report))


def step_point(sizes: dict, args) -> dict:
    logits = sizes["batch"] * sizes["length"] * sizes["vocab_size"]
    names = [n for n in STEPS if n in args.only and (logits <= MOST_LOGITS_OF_PYTORCH or not n.startswith("torch"))]
    with tempfile.TemporaryDirectory() as folder:
        train_step.write_weights(argparse.Namespace(**sizes), Path(folder))
        return measured(train_step, names, sizes, folder, args.repeats)


def decode_point(sizes: dict, args) -> dict:
    from adaspec_jax import models

    names = [name for name in DECODERS if name in args.only]
    with tempfile.TemporaryDirectory() as folder:
        pair = matched_pair(sizes["target"], sizes["draft"], noise=0.1)
        for name, model in zip(("target", "draft"), pair, strict=True):
            models.save(model, Path(folder) / name)
        del pair, model
        given = {key: value for key, value in sizes.items() if key not in ("target", "draft")}
        results = measured(decode, names, given, folder, args.repeats)
    for row in results.values():
        row["seconds"] /= sizes["batch"] * sizes["new"]  # per token
    return results


def measured(module, names, sizes: dict, folder: str, repeats: int) -> dict:
    given = [f"--{key}={value}" for key, value in sizes.items()] + [f"--weights={folder}"]
    workers = [
        Worker(name, [module.__file__, f"--worker={name}", *given], getattr(module, "SETTINGS", {}).get(name))
        for name in names
    ]
    results = interleave(workers, repeats)
    stop(workers)
    return results


def drawn(report: dict) -> str:
    """Small charts side by side, one standalone SVG: seconds and, for steps, megabytes, against each size."""
    charts = []
    for axis, (kind, _, _) in AXES.items():
        points = [point for point in report["points"] if point["axis"] == axis]
        wanted = {"seconds": "seconds per step" if kind == "step" else "seconds per token"}
        if kind == "step":
            wanted["peak_mb"] = "peak MB of the steps"
        for key, label in wanted.items():
            series: dict[str, list] = {}
            for point in points:
                x = parameters(point["value"]) / 1e6 if point["value"] in SHAPES else point["value"]
                for name, row in point["results"].items():
                    series.setdefault(name, []).append((x, row[key]))
            unit = " (million parameters)" if axis.endswith("target") else ""
            charts.append((series, axis + unit, label))
    return side_by_side(charts, title="How costs grow")


if __name__ == "__main__":
    main()
