"""A layer of experts in four forms, timed in turn: which reads and computes least, for few tokens and for many.

    python benchmarks/experts.py --json benchmarks/results/experts.json

64 experts of 1024 x 384, of which each token takes 4, float32: a quarter of Qwen3-30B-A3B's layer in every size but the
share of experts that a token takes. All forms must give the same numbers, and gradients where they are timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
from interleave import machine  # noqa: E402

WIDTH, INSIDE, EXPERTS, TAKEN = 1024, 384, 64, 4
DECODING, TRAINING = (1, 4, 8, 16, 64), (256,)
LARGEST_GATHER = 16  # tokens: beyond, the copies of matrices take gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import jax

    draw = np.random.default_rng(0)
    shapes = {"up": (WIDTH, INSIDE), "gate": (WIDTH, INSIDE), "down": (INSIDE, WIDTH)}
    weights = {k: 0.03 * draw.normal(size=(EXPERTS, *shape)).astype(np.float32) for k, shape in shapes.items()}
    weights, results = jax.device_put(weights), {}
    for kind, counts in {"forward": DECODING, "gradient": TRAINING}.items():
        for rows in counts:
            found = timed(kind, rows, weights, args.repeats)
            results[f"{kind}, {rows} tokens"] = found
            print(f"{kind}, {rows} tokens: " + ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in found.items()))
    if args.json:
        said = {"machine": machine() | {"jax": jax.__version__}, "median_seconds": results}
        args.json.write_text(json.dumps(said, indent=2) + "\n")


def forms():
    """{name: function of (rows, shares, experts, weights)}."""
    import jax
    import jax.numpy as jnp

    from adaspec_jax.models.grouped_products import map_groups

    def grouped(form, rows, shares, experts, w):
        def apply(times, rows):
            return times(jax.nn.silu(times(rows, w["gate"])) * times(rows, w["up"]), w["down"])

        pairs = jnp.repeat(rows, TAKEN, axis=0)
        made = map_groups(apply, pairs, experts.reshape(-1), groups=EXPERTS, form=form)
        return jnp.einsum("rk,rkd->rd", shares, made.reshape(*experts.shape, -1))

    def every(rows, shares, experts, w):
        of_expert = jnp.zeros((len(rows), EXPERTS)).at[jnp.arange(len(rows))[:, None], experts].add(shares)

        def body(total, part):
            w, share = part
            return total + ((jax.nn.silu(rows @ w["gate"]) * (rows @ w["up"])) @ w["down"]) * share[:, None], None

        return jax.lax.scan(body, jnp.zeros_like(rows), (w, of_expert.T))[0]

    def gathered(rows, shares, experts, w):
        w = {name: stack[experts] for name, stack in w.items()}
        inside = jax.nn.silu(jnp.einsum("rd,rkdf->rkf", rows, w["gate"])) * jnp.einsum("rd,rkdf->rkf", rows, w["up"])
        return jnp.einsum("rkf,rkfd,rk->rd", inside, w["down"], shares)

    names = {"blocks": partial(grouped, "blocks"), "ragged": partial(grouped, "ragged")}
    return names | {"every expert, masked": every, "chosen matrices gathered": gathered}


def timed(kind: str, count: int, weights: dict, repeats: int) -> dict[str, float]:
    """Median seconds of each form for so many tokens."""
    import jax
    import jax.numpy as jnp

    draw = np.random.default_rng(count)
    rows = jnp.asarray(draw.normal(size=(count, WIDTH)), jnp.float32)
    shares, experts = jax.lax.top_k(jax.nn.softmax(jnp.asarray(draw.normal(size=(count, EXPERTS)))), TAKEN)
    runs, expected = {}, None
    for name, form in forms().items():
        if "gathered" in name and (count > LARGEST_GATHER or kind == "gradient"):
            continue
        function = form
        if kind == "gradient":
            loss = lambda rows, shares, experts, w, form=form: jnp.sum(jnp.sin(form(rows, shares, experts, w)))  # noqa: E731
            function = jax.grad(loss, argnums=(0, 3))
        run = partial(jax.jit(function), rows, shares, experts, weights)
        made = jax.block_until_ready(run())
        expected = made if expected is None else expected
        same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)  # noqa: E731
        jax.tree.map(same, made, expected)
        runs[name] = run
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
