"""This checkout against another one, in turn on one machine: decoding, prefill, sampling and a training step.

    git worktree add /tmp/before COMMIT
    python benchmarks/against.py --root /tmp/before --json benchmarks/results/against.json

Each checkout's package runs in a process of its own; every unit is done by one and then by the other, so that drifts of
the machine hit both. Printed: the ratio of their times, this checkout's over the other's, with the 95 % interval of its
median over the pairs (bootstrap); a case is slower where the whole interval lies beyond 1.03.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent)]

from interleave import Worker, machine, serve, stop  # noqa: E402

SLOWER = 1.03
CASES = ("plain", "chain", "tree", "sampled plain", "sampled chain", "prefill", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="the other checkout")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--target", default="70m", help="a Pythia shape, of benchmarks/pairs.py")
    parser.add_argument("--draft", default="14m")
    parser.add_argument("--vocab_size", type=int, default=16384)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(*worker(args))
    results = {}
    for case in args.cases.split(","):
        results[case] = row = compared(case, args)
        low, high = row["ci95"]
        verdict = "slower" if low > SLOWER else "faster" if high < 1 else ""
        print(f"{case:16}{row['ratio']:7.3f} [{low:.3f}, {high:.3f}]  {row['seconds']:.3f} s  {verdict}", flush=True)
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "worker", "root", "cases")}
        report = {"settings": settings, "machine": machine(), "cases": results}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def compared(case: str, args) -> dict:
    given = ["--worker", case, "--target", args.target, "--draft", args.draft]
    given += [f"--{name}={getattr(args, name)}" for name in ("vocab_size", "batch", "new")]
    roots = {"this": ROOT, "other": args.root.resolve()}
    workers = [Worker(name, [__file__, *given], {"PYTHONPATH": str(root)}) for name, root in roots.items()]
    for number in range(args.pairs):
        for at in workers if number % 2 else workers[::-1]:
            at.unit()
    stop(workers)
    ours, theirs = ([row["seconds"] for row in at.rows] for at in workers)
    ratios = np.asarray(ours) / np.asarray(theirs)
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    found = {"ratio": float(np.median(ratios)), "ci95": [float(low), float(high)], "pairs": len(ratios)}
    busy = np.median([row["other_cores"] for at in workers for row in at.rows])
    return found | {"seconds": float(np.median(ours)), "other_cores": float(busy), "ready": workers[0].ready}


def worker(args):
    """(unit, ready) of a case; only names that both checkouts have."""
    import jax
    from pairs import config, matched_pair

    from adaspec_jax import models
    from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, TreeDrafter, generate

    rng = np.random.default_rng(0)
    if args.worker == "step":
        shapes = (config(shape, args.vocab_size) for shape in (args.target, args.draft))
        return training_step(args, *(models.build(shape, jax.random.key(1)) for shape in shapes))
    target, draft = matched_pair(args.target, args.draft, noise=0.3, vocab_size=args.vocab_size)
    # As the commands of each checkout decode: one of before this method has no other layout.
    target, draft = (getattr(model, "for_decoding", lambda model=model: model)() for model in (target, draft))
    kind = args.worker.split()[-1]
    length, new = (1024, 1) if kind == "prefill" else (32, args.new)
    prompt = Context(rng.integers(0, args.vocab_size, (args.batch, length)), np.full(args.batch, length))
    drafter = {"chain": ChainDrafter(draft, length=5), "tree": TreeDrafter(draft)}.get(kind, NoDraft())
    knobs = {"max_new_tokens": new, "sampling": Sampling(0.0 if " " not in args.worker else 1.0), "eos_id": -1}

    def unit():
        made = jax.block_until_ready(generate(target, drafter, prompt, jax.random.key(0), **knobs))
        return {"rounds": int(made.rounds_B.sum())}

    return unit, {}


def training_step(args, target, draft):
    import jax

    from adaspec_jax.training import Batch, Chunking, Frozen, adamw, init_state, make_step, objectives

    tokens_BT = np.random.default_rng(0).integers(0, args.vocab_size, (args.batch, 128)).astype(np.int32)
    mask_BT = np.zeros(tokens_BT.shape, bool)
    mask_BT[:, 48:] = True
    optimizer = adamw(1e-4, weight_decay=0.1, clip_norm=1.0)
    step = make_step(objectives.selective_distill(fraction=0.4, chunking=Chunking.for_backend("cpu")), optimizer)
    batch, state = Batch(tokens_BT, mask_BT), init_state(draft, optimizer, jax.random.key(0))
    frozen = jax.tree.map(lambda leaf: leaf.copy(), Frozen(target, draft))  # the step gives its state's memory away

    def unit():
        nonlocal state
        state, metrics = step(state, frozen, batch)
        return {"loss": float(metrics["loss"])}

    return unit, {}


if __name__ == "__main__":
    main()
