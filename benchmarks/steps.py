"""A decoding step and a verification of guesses against an earlier checkout, after short and long prompts.

    git worktree add /tmp/before COMMIT
    python benchmarks/steps.py --root /tmp/before --batch 8 --json benchmarks/results/steps_160m_batch8.json

The target alone, with random weights: what it takes to read one token, or one and five guesses, of every row after 32
and after 480 tokens, greedy choice included. Each checkout's package runs in a process of its own, one unit at a time
in turn; this one also with products in bfloat16, and this one's matrix products by themselves. Printed: milliseconds a
call (median), and over the other checkout's with the 95 % interval of the median over pairs (bootstrap).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent)]

from interleave import Worker, machine, serve, stop  # noqa: E402

VARIANTS = ("other", "this", "this, bfloat16")
ROOM = 64  # slots beyond the prompt
CALLS = 2  # in one unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="the other checkout")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600, help="no further pair is begun after so many")
    parser.add_argument("--target", default="160m", help="a Pythia shape, of benchmarks/pairs.py")
    parser.add_argument("--vocab_size", type=int, default=50304)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompts", default="32,480")
    parser.add_argument("--widths", default="1,6", help="tokens read at once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(*worker(args))
    began = time.perf_counter()
    roots = {name: args.root.resolve() if name == "other" else ROOT for name in VARIANTS}
    shape = [f"--{name}={getattr(args, name)}" for name in ("target", "vocab_size", "batch", "prompts", "widths")]
    workers = [
        Worker(name, [__file__, "--worker", name, *shape], {"PYTHONPATH": str(root)}) for name, root in roots.items()
    ]
    commands = cases(args)
    for number in range(args.pairs):
        for at in workers if number % 2 else workers[::-1]:
            for command in commands:
                at.unit(command)
        if time.perf_counter() - began > args.seconds:
            break
    stop(workers)
    results = {command: of_case(command, workers) for command in commands}
    for command, row in results.items():
        print(f"{command:16}" + "".join(f"  {name} {in_words(row[name])}" for name in VARIANTS))
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "worker", "root")}
        report = {"settings": settings, "machine": machine(), "cases": results}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def cases(args) -> list[str]:
    """What a worker is asked: "call PROMPT WIDTH", and "products 0 WIDTH"."""
    prompts, widths = args.prompts.split(","), args.widths.split(",")
    return [f"call {p} {w}" for p in prompts for w in widths] + [f"products 0 {w}" for w in widths]


def of_case(command: str, workers: list[Worker]) -> dict:
    found = {}
    theirs = np.array([row["seconds"] for row in workers[0].others[command]])
    for at in workers:
        rows = at.others[command]
        ours = np.array([row["seconds"] for row in rows])
        drawn = np.random.default_rng(0).choice(ours / theirs, (10_000, len(ours)))
        low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
        found[at.name] = {
            "milliseconds": float(np.median(ours)) * 1e3 / CALLS,
            "ratio": float(np.median(ours / theirs)),
            "ci95": [float(low), float(high)],
            "pairs": len(rows),
            "other_cores": float(np.median([row["other_cores"] for row in rows])),
        }
    return found


def in_words(row: dict) -> str:
    low, high = row["ci95"]
    return f"{row['milliseconds']:.1f} ms ({row['ratio']:.3f} [{low:.3f}, {high:.3f}])"


def worker(args):
    """(unit, ready); only names that both checkouts have, but for the layout that is measured."""
    import jax
    import jax.numpy as jnp
    from pairs import config

    from adaspec_jax import models

    model = models.build(config(args.target, args.vocab_size), jax.random.key(0))
    if args.worker != "other":
        model = model.for_decoding(*(["bfloat16"] if args.worker.endswith("bfloat16") else []))

    @partial(jax.jit, static_argnames="width", donate_argnames="cache")
    def call(model, cache, *, width: int):
        def body(_, carry):
            tokens_BT, cache = carry
            logits_BTV, after = model(tokens_BT, cache)
            return jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32), after.roll_back(cache.lengths_B)

        return jax.lax.fori_loop(0, CALLS, body, (jnp.ones((args.batch, width), jnp.int32), cache))

    @partial(jax.jit, static_argnames="width")
    def products(model, *, width: int):
        leaves = jax.tree_util.tree_leaves_with_path(model.params)
        weights = [(leaf, path[-1].key) for path, leaf in leaves if path[-1].key in ("kernel", "weight")]

        def body(_, total):
            for weight, name in weights:
                axis = 0 if name == "kernel" else 1
                count = max(args.batch * width, 2 if weight.dtype == jnp.bfloat16 else 1)
                rows = jnp.full((count, weight.shape[axis]), total, weight.dtype)
                out = jax.lax.dot_general(rows, weight, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)
                total += out[0, 0] * 1e-9  # so that each follows the one before
            return total

        return jax.lax.fori_loop(0, CALLS, body, jnp.float32(1))

    caches = {}
    for prompt in map(int, args.prompts.split(",")):
        empty = jax.tree.map(jnp.asarray, model.init_cache(args.batch, prompt + ROOM))
        caches[prompt] = empty.roll_back(jnp.full((args.batch,), prompt))

    def unit(command="call", prompt=None, width=None):
        if prompt is None:  # the first unit warms everything up
            return [unit(*case.split()) for case in cases(args)][-1]
        if command == "products":
            jax.block_until_ready(products(model, width=int(width)))
        else:
            caches[int(prompt)] = jax.block_until_ready(call(model, caches[int(prompt)], width=int(width)))[1]
        return {}

    return unit, {}


if __name__ == "__main__":
    main()
