"""Memory that `plan` predicts for this machine against what a real step takes: peak resident size, by a fresh process.

    python benchmarks/plan_against_run.py --json benchmarks/results/plan_against_run.json

The peak before any array is made (interpreter, libraries, compiler) is taken off: what remains is the program's
arguments, temporaries and outputs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

CASES = {
    "fine_tune": {"stage": "target", "rows": 16, "length": 512},
    "distill": {"stage": "reference", "rows": 16, "length": 512},
    "selective": {"stage": "draft", "rows": 16, "length": 512},
    "fine_tune, 4 micro-batches": {"stage": "target", "rows": 16, "length": 512, "micro_batches": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=[*CASES], choices=CASES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return print(json.dumps(measured(**json.loads(args.worker))))
    rows = []
    print(f"{'case':>28}{'planned GB':>12}{'measured GB':>13}{'ratio':>7}")
    for name in args.only:
        row = {"case": name} | worker(**CASES[name])
        row["measured_bytes"] = row.pop("peak_bytes") - row.pop("bare_bytes")
        row["ratio"] = row["measured_bytes"] / row["planned_bytes"]
        rows.append(row)
        planned, found = row["planned_bytes"] / 1e9, row["measured_bytes"] / 1e9
        print(f"{name:>28}{planned:12.3f}{found:13.3f}{row['ratio']:7.2f}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")


def worker(**case) -> dict:
    command = [sys.executable, __file__, "--worker", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(*, stage: str, rows: int, length: int, micro_batches: int = 1) -> dict:
    """Plans a step, compiles it, then makes its arguments and runs it; peaks before and after."""
    import jax
    import numpy as np

    from adaspec_jax import models
    from adaspec_jax.command_line import load_config
    from adaspec_jax.devices import sharding
    from adaspec_jax.devices.ahead_of_time import lowered, needed
    from adaspec_jax.pipeline.memory import Memory
    from adaspec_jax.pipeline.program import program, step_arguments
    from adaspec_jax.pipeline.stage_spec import stage_spec
    from adaspec_jax.training import Batch, Frozen

    config = load_config(str(Path(__file__).resolve().parent.parent / "configs" / "pythia_31m_1b4.py"))
    config.dtype, config.mesh.data = "float32", 1
    mesh = sharding.make_mesh(1, devices=jax.devices()[:1])
    memory = Memory(micro_batches=micro_batches, scanned=True)
    made = program(stage_spec(config, getattr(config, stage), steps=10, mesh=mesh, backend="cpu"), memory)
    build = lambda seed: models.build(config.draft.architecture.hf_config(), jax.random.key(seed))  # noqa: E731
    model = jax.eval_shape(build, 0)
    frozen = Frozen(None if stage == "target" else model, model if stage == "draft" else None)
    arguments = step_arguments(made, model, frozen, mesh=mesh, rows=rows, length=length)
    compiled = lowered(made.step, *arguments, mesh=mesh, backend="cpu").lowering.compile()
    planned = needed(compiled).total
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = jax.jit(lambda: made.begin(build(0), jax.random.key(0)))
    state = begin()
    frozen = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype) + 0.01, arguments[1])
    tokens = np.random.default_rng(0).integers(0, config.draft.architecture.vocab_size, (rows, length), np.int32)
    batch = Batch(jax.numpy.asarray(tokens), jax.numpy.ones((rows, length), bool))
    jax.block_until_ready(compiled(state, frozen, batch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"planned_bytes": planned, "peak_bytes": peak, "bare_bytes": bare, "jax": jax.__version__}


if __name__ == "__main__":
    main()
