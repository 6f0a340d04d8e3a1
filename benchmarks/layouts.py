"""The products of a decoding step by themselves: how the kernels of a 160M shape are read fastest, by rows.

    python benchmarks/layouts.py --json benchmarks/results/layouts.json

[in, out] and [out, in], float32 and bfloat16 (float32 sums), q, k and v apart or as one: milliseconds for all layers,
and for the head, the least of a few calls taken in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from interleave import machine  # noqa: E402

WIDTH, INNER, LAYERS, VOCABULARY = 768, 3072, 12, 50304
SHAPES = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH)}
SHAPES |= {"out": (WIDTH, WIDTH), "up": (WIDTH, INNER), "down": (INNER, WIDTH)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,2,6,8,16,48,256")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng, found = np.random.default_rng(0), {}
    cases = variants(rng)
    for rows in map(int, args.rows.split(",")):
        rows_RD = jnp.asarray(rng.normal(size=(rows, WIDTH)), jnp.float32)
        least = dict.fromkeys(cases, float("inf"))
        for _ in range(args.repeats + 1):  # the first compiles, and is never the least
            for name, (function, kernels) in cases.items():
                began = time.perf_counter()
                jax.block_until_ready(function(rows_RD, kernels))
                least[name] = min(least[name], time.perf_counter() - began)
        found[str(rows)] = {name: seconds * 1e3 for name, seconds in least.items()}
        said = "  ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in found[str(rows)].items())
        print(f"rows {rows:4}  {said}", flush=True)
    if args.json:
        report = {"settings": {"rows": args.rows, "repeats": args.repeats}, "machine": machine(), "milliseconds": found}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def variants(rng) -> dict:
    """{name: (jitted function of rows and kernels, kernels)}."""
    apart = [{name: drawn(rng, shape) for name, shape in SHAPES.items()} for _ in range(LAYERS)]
    one = [
        {"qkv": np.concatenate([layer[name] for name in "qkv"], axis=1), **{n: layer[n] for n in ("out", "up", "down")}}
        for layer in apart
    ]
    head = [{"head": drawn(rng, (WIDTH, VOCABULARY))}]
    found = {}
    for name, kernels, function in (("apart", apart, through), ("one", one, through), ("head", head, unembedded)):
        for dtype in (jnp.float32, jnp.bfloat16):
            for axis, layout in enumerate(("[in, out]", "[out, in]")):
                if name == "apart" and dtype == jnp.bfloat16:
                    continue
                laid = jax.tree.map(lambda x, axis=axis, dtype=dtype: jnp.asarray(x.T if axis else x, dtype), kernels)
                label = f"{name} {layout}{' bfloat16' if dtype == jnp.bfloat16 else ''}"
                found[label] = (jax.jit(lambda x, ks, axis=axis, f=function: f(x, ks, axis)), laid)
    return found


def drawn(rng, shape: tuple[int, int]) -> np.ndarray:
    return (0.03 * rng.normal(size=shape)).astype(np.float32)


def product(rows, kernel, axis: int):
    dims = (((1,), (axis,)), ((), ()))
    return jax.lax.dot_general(rows.astype(kernel.dtype), kernel, dims, preferred_element_type=jnp.float32)


def through(rows, layers, axis: int):
    """Layers of nothing but their products, each fed by the one before."""
    for layer in layers:
        if "qkv" in layer:
            q, k, v = jnp.split(product(rows, layer["qkv"], axis), 3, axis=1)
        else:
            q, k, v = (product(rows, layer[name], axis) for name in "qkv")
        mixed = product(0.5 * q + 0.2 * k + v, layer["out"], axis)
        inner = jnp.maximum(product(rows, layer["up"], axis), 0)
        rows = rows + 0.1 * mixed + 0.1 * product(inner, layer["down"], axis)
    return rows


def unembedded(rows, layers, axis: int):
    return product(rows, layers[0]["head"], axis)


if __name__ == "__main__":
    main()
