"""Every row of the paper's table and the pairs of other families, planned for TPU slices; and weak scaling on paper.

    python benchmarks/plan_table.py --json benchmarks/results/plan.json --markdown docs/plan.md

Compiles once per distinct pair, stage, batch, length, chip and mesh; cells share it. (A slice with more chips than
divide the batches is used in part: 16 x 16 chips are then no other mesh than 2 x 4.) What the JSON has is kept, so that
the command can be cut short and resumed (`--minutes 30` stops after a while; `--only pythia` takes part of the cells,
so that two can run at once; `--search` adds the largest batches). Needs libtpu (`pip install "jax[tpu]"`) and no TPU.
`--rough` fills cells that are not compiled yet by sizes alone, in seconds and without libtpu; the table says "about".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from adaspec_jax import planning  # noqa: E402
from adaspec_jax.command_line import load_config  # noqa: E402
from adaspec_jax.devices import topologies  # noqa: E402
from adaspec_jax.pipeline.layout import schedule  # noqa: E402
from adaspec_jax.pipeline.memory import Memory  # noqa: E402
from adaspec_jax.plan import in_gib, lines  # noqa: E402

TASKS = ("gsm8k", "alpaca", "mbpp", "cnn_dailymail", "xsum")
VARIANTS = tuple(f"{task}{suffix}" for suffix in ("", "_3epoch") for task in TASKS)
SLICES = ("v5e:1x1", "v6e:1x1", "v5e:2x4", "v5p:2x2x1", "v5e:16x16")
SMALL_SLICES = ("v5e:1x1", "v6e:1x1", "v5e:2x4", "v5e:4x4")
TABLE = {  # config file: (variants, slices)
    "pythia_31m_1b4": (VARIANTS, SLICES),
    "codegen350m_phi2": (VARIANTS, SLICES),
    "qwen05b_32b": (("gsm8k_3epoch",), ("v5e:4x4", "v5p:2x2x1", "v5e:16x16")),
    "smollm2_pair": (("135m", "360m"), SMALL_SLICES),
    "gemma3": (("4b", "12b", "27b"), SMALL_SLICES),
    "phi4_mini": (("",), SMALL_SLICES),
    "ministral8b": (("",), SMALL_SLICES),
    "qwen3_06b_30b_a3b": (("gsm8k_3epoch",), SMALL_SLICES),
}
SIZED = ("smollm2_pair", "gemma3")  # whose variants are of different sizes
SCALING = {  # config file: (rows per chip, axis the chips lie along)
    "pythia_31m_1b4": (2, "data"),
    "qwen05b_32b": (1, "fsdp"),
}
SCALED = ("v5p:2x2x2", "v5p:4x8x8", "v5p:8x8x8")
STAGES = planning.STAGES
EFFORT = {  # of the compiler: at the lowest, training takes nearly the same memory, decoding up to half as much again
    **dict.fromkeys(("target", "reference", "draft"), -1.0),
    "decode": 0.0,
}
NOTHING = "nothing given up"
ROUGH_CHIPS = 16  # at most, of a slice that is planned by sizes alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--only", default="", help="cells with this in their name")
    parser.add_argument("--search", action="store_true", help="also the largest batch that fits")
    parser.add_argument("--rough", action="store_true", help="what is not compiled yet by sizes alone")
    args = parser.parse_args()
    import jax

    jax.config.update("jax_platforms", "cpu")
    if args.rough:
        jax.config.update("jax_num_cpu_devices", ROUGH_CHIPS)
    until = time.monotonic() + 60 * args.minutes
    for key, config, stage, topology in wanted():
        known = read(args.json)
        if args.only not in key:
            continue
        if args.rough and (key in known or topologies.parse(topology)[1] > ROUGH_CHIPS):
            continue
        same = key in known and is_compiled(known[key]) and known[key].get("effort", EFFORT[stage]) == EFFORT[stage]
        if same and (known[key]["largest_batch"] is not None or not args.search):
            continue
        if time.monotonic() > until:
            break
        began = time.monotonic()
        made = planning.Plan(config, slice_of(topology, args.rough), compiling=not args.rough)
        figures = same_program(known, key, stage, made, rough=args.rough)
        if figures is None or (args.search and figures.get("largest_batch") is None):
            before = known.get(key, {})
            chosen = before.get("memory") if is_compiled(before) else None  # what a rough plan chose may not do
            figures = made.stage(stage, search=args.search, memory=chosen and Memory(**chosen))
        print(f"{key}: {time.monotonic() - began:.0f} s", *lines(stage, figures), sep="\n", flush=True)
        args.json.write_text(json.dumps(read(args.json) | {key: figures}, indent=1) + "\n")
    if args.markdown:
        written(args.markdown, read(args.json))


def slice_of(name: str, rough: bool) -> topologies.Topology:
    if not rough:
        return topologies.find(name)
    import jax

    chip, count = topologies.parse(name)
    return topologies.Topology(name, jax.devices("cpu")[:count], "tpu", chip)


def is_compiled(figures: dict) -> bool:
    return figures.get("how", "compiled") == "compiled"


def read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.is_file() else {}


def same_program(known: dict, key: str, stage: str, made: planning.Plan, *, rough: bool) -> dict | None:
    """The figures of a cell that differs in the slice alone, not in its chip or mesh."""
    what, _, topology = key.rpartition(" on ")
    for other, figures in known.items():
        same, _, slice_ = other.rpartition(" on ")
        if (
            same == what
            and is_compiled(figures) != rough
            and slice_.split(":")[0] == topology.split(":")[0]
            and figures.get("mesh") == dict(made.mesh.shape)
            and figures.get("effort", EFFORT[stage]) == EFFORT[stage]
        ):
            return figures
    return None


def configured(file: str, variant: str):
    return load_config(f"{ROOT / 'configs' / file}.py:{variant}")


def pair_of(file: str, variant: str) -> str:
    return f"{file}:{variant}" if file in SIZED else file


def key_of(file: str, config, stage: str, topology: str) -> str:
    batch = config.evaluation.batch_size if stage == "decode" else schedule(getattr(config, stage))[1]
    return f"{file} {stage} {batch} x {config.data.buckets[-1]} on {topology}"


def wanted():
    """(key, config, stage, topology) of every cell, what is asked for most first."""
    yield from cells(slice(1))
    yield from scaling_cells()
    yield from cells(slice(1, None))


def cells(which: slice = slice(None)):
    for file, (variants, slices) in TABLE.items():
        for variant in variants[which]:
            for topology in slices:
                for stage in STAGES:
                    config = configured(file, variant)
                    if stage == "decode" or getattr(config, stage).epochs:
                        yield key_of(pair_of(file, variant), config, stage, topology), config, stage, topology


def scaling_cells():
    for file, (rows, axis) in SCALING.items():
        for topology in SCALED:
            chips = topologies.parse(topology)[1]
            config = configured(file, TABLE[file][0][0])
            config.draft.budget = "equal_compute"
            for stage in ("target", "reference", "draft"):
                getattr(config, stage).batch_size = rows * chips
            config.evaluation.batch_size = chips
            config.mesh.data, config.mesh.fsdp = (chips, 1) if axis == "data" else (1, chips)
            for stage in ("target", "draft"):
                yield f"scaling: {key_of(file, config, stage, topology)}", config, stage, topology


def written(file: Path, known: dict) -> None:
    text = file.read_text() if file.is_file() else ""
    head = text.split(MARK)[0] if MARK in text else text
    file.write_text(head.rstrip() + f"\n\n{MARK}\n\n" + "\n".join([*tables(known), *scaling(known)]) + "\n")


MARK = "<!-- what follows is written by benchmarks/plan_table.py -->"


def tables(known: dict):
    for file, (variants, slices) in TABLE.items():
        yield f"### configs/{file}.py\n"
        yield "| variant | stage | batch x length | " + " | ".join(slices) + " |"
        yield "|---" * (3 + len(slices)) + "|"
        for variant in variants:
            config = configured(file, variant)
            for stage in STAGES:
                if stage != "decode" and not getattr(config, stage).epochs:
                    continue
                pair = pair_of(file, variant)
                found = [known.get(key_of(pair, config, stage, topology)) for topology in slices]
                size = key_of(file, config, stage, "").split(" ", 2)[2].removesuffix(" on ")
                yield f"| {variant} | {stage} | {size} | " + " | ".join(cell(x, config, stage) for x in found) + " |"
        yield ""


def cell(found: dict | None, config, stage: str) -> str:
    if found is None:
        return "not planned yet"
    words = f"{'' if is_compiled(found) else 'about '}{in_gib(found['hbm_bytes'])} GiB"
    if found.get("effort", EFFORT[stage]) != EFFORT[stage]:
        words += " \\*"
    if not found["chosen"].startswith(NOTHING):
        words += f" ({found['chosen']})"
    if found["largest_batch"] is not None:
        words += f", up to {found['largest_batch']:,} rows"
    if not found["fits"]:
        return f"**no**: {words}"
    if stage == "decode":
        return f"{words}, {1e3 * found['step_seconds']:.2g} ms"
    epochs, batch = schedule(getattr(config, stage))
    steps = round(epochs * found["examples"]) // batch
    return f"{words}, {1e3 * found['step_seconds']:.3g} ms, {steps * found['step_seconds'] / 3600:.2g} h"


def scaling(known: dict):
    yield "### Weak scaling, from the compiled programs\n"
    yield "| pair, stage | " + " | ".join(SCALED) + " |"
    yield "|---" * (1 + len(SCALED)) + "|"
    rows: dict[str, dict[str, str]] = {}
    for key, _, stage, topology in scaling_cells():
        found = known.get(key)
        words = "not planned yet"
        if found:
            words = f"{found['collective_bytes'] / 1e9:.2f} GB sent, {1e3 * found['roofline_seconds']:.3g} ms bound"
            words += f", {in_gib(found['hbm_bytes'])} GiB"
        rows.setdefault(f"{key.split()[1]}, {stage}", {})[topology] = words
    for name, found in rows.items():
        yield f"| {name} | " + " | ".join(found[topology] for topology in SCALED) + " |"


if __name__ == "__main__":
    main()
