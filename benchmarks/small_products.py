"""Few rows times a big matrix, the product that verification waits for: layouts and tricks, timed in turn.

    python benchmarks/small_products.py --json benchmarks/results/small_products.json
    XLA_FLAGS=--xla_cpu_use_xnnpack=true python benchmarks/small_products.py

The matrix is an output matrix of the 160M shape, [768, 50304] float32. One row is bound by reading it; two to six rows
read the same bytes and should cost the same. What is tried for six rows must give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from interleave import machine  # noqa: E402

WIDTH, VOCAB, SIX = 768, 50304, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import jax
    import jax.numpy as jnp
    from jax import lax

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(WIDTH, VOCAB)).astype(np.float32)
    in_out, out_in = jnp.asarray(kernel), jnp.asarray(np.ascontiguousarray(kernel.T))
    panels = {
        count: jnp.asarray(np.ascontiguousarray(kernel.reshape(WIDTH, count, -1).transpose(1, 0, 2)))
        for count in (4, 48)
    }
    contract_last = (((1,), (1,)), ((), ()))
    cases = {}
    for rows in (1, 2, 4, 6, 8, 16):
        cases[f"{rows} rows, [in, out]"] = (rows, lambda x, w: x @ w, in_out)
        cases[f"{rows} rows, [out, in]"] = (rows, lambda x, w: lax.dot_general(x, w, contract_last), out_in)
    cases |= {
        "6 rows, [out, in], transposed result": (
            SIX,
            lambda x, w: lax.dot_general(w, x, contract_last).T,
            out_in,
        ),
        "6 rows, padded to 8": (SIX, lambda x, w: (jnp.pad(x, ((0, 2), (0, 0))) @ w)[:SIX], in_out),
        "6 rows, three and three": (SIX, lambda x, w: jnp.concatenate([x[:3] @ w, x[3:] @ w]), in_out),
        "6 rows, inputs in four parts": (
            SIX,
            lambda x, w: sum(x[:, part] @ w[part] for part in (slice(i, i + WIDTH // 4) for i in range(0, WIDTH, 192))),
            in_out,
        ),
        "6 rows, 4 panels apart": (SIX, lambda x, w: jnp.concatenate([x @ panel for panel in w], 1), list(panels[4])),
        "6 rows, 48 panels in a loop": (
            SIX,
            lambda x, w: jnp.moveaxis(lax.map(lambda panel: x @ panel, w), 0, 1).reshape(SIX, VOCAB),
            panels[48],
        ),
        "6 rows, batched product of 48 panels": (
            SIX,
            lambda x, w: jnp.einsum("md,kdv->mkv", x, w).reshape(SIX, VOCAB),
            panels[48],
        ),
        "6 rows, six sums in one pass": (
            SIX,
            lambda x, w: jnp.stack(
                lax.reduce(
                    tuple(w * x[m] for m in range(SIX)),
                    (0.0,) * SIX,
                    lambda a, b: tuple(i + j for i, j in zip(a, b, strict=True)),
                    (1,),
                )
            ),
            out_in,
        ),
        "6 rows, convolution": (
            SIX,
            lambda x, w: lax.conv_general_dilated(
                x[None], w[None], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
            )[0],
            in_out,
        ),
    }
    inputs = {rows: rng.normal(size=(rows, WIDTH)).astype(np.float32) for rows, _, _ in cases.values()}
    runs = {}
    for name, (rows, function, matrix) in cases.items():
        compiled, x = jax.jit(function), jnp.asarray(inputs[rows])
        np.testing.assert_allclose(compiled(x, matrix), inputs[rows] @ kernel, rtol=1e-3, atol=1e-3, err_msg=name)
        runs[name] = lambda compiled=compiled, x=x, matrix=matrix: jax.block_until_ready(compiled(x, matrix))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - began)
    one = statistics.median(taken["1 rows, [in, out]"])
    results = {}
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        results[name] = {
            "seconds": median,
            "gb_per_second": kernel.nbytes / median / 1e9,
            "times_one_row": median / one,
        }
        print(f"{name:42}{1e3 * median:8.2f} ms{kernel.nbytes / median / 1e9:8.1f} GB/s{median / one:7.2f}")
    if args.json:
        flags = {"xla_flags": os.environ.get("XLA_FLAGS", ""), "jax": jax.__version__}
        args.json.write_text(json.dumps({"machine": machine() | flags, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
