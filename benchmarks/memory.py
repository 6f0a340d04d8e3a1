"""Temporary memory of one AdaSPEC step, as the compiler plans it: whole logits against chunks of them.

    python benchmarks/memory.py --json benchmarks/results/memory.json

Compiles the step of the 31M draft and the 160M target on abstract values, so nothing is allocated and any size can be
asked about. "Whole" is the same mathematics under plain `jax.jit`: three models' logits over all positions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from pairs import config  # noqa: E402

FRACTION = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", default="31m")
    parser.add_argument("--target", default="160m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[50304, 152064])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import jax

    rows = []
    print(f"{'tokens':>12}{'entries':>9}{'whole GB':>10}{'chunks GB':>11}{'stored GB':>11}{'state and weights GB':>22}")
    for vocab_size in args.vocabularies:
        for length in args.lengths:
            row = {"batch": args.batch, "length": length, "vocab_size": vocab_size, "jax": jax.__version__}
            for way in ("whole", "chunks", "stored"):
                temporary, arguments = planned(way, args, length, vocab_size)
                row |= {f"{way}_temporary_bytes": temporary, f"{way}_argument_bytes": arguments}
            rows.append(row)
            sizes = [row[f"{way}_temporary_bytes"] / 1e9 for way in ("whole", "chunks", "stored")]
            shown = "".join(f"{size:{width}.2f}" for size, width in zip(sizes, (10, 11, 11), strict=True))
            given = row["chunks_argument_bytes"] / 1e9
            print(f"{f'{args.batch} x {length}':>12}{vocab_size:9}{shown}{given:22.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def planned(way: str, args, length: int, vocab_size: int) -> tuple[int, int]:
    """(temporary, argument) bytes of the compiled step."""
    import jax
    import jax.numpy as jnp

    from adaspec_jax import models
    from adaspec_jax.training import Batch, Chunking, Frozen, adamw, init_state, make_step, objectives

    def model(shape):
        return jax.eval_shape(lambda: models.build(config(shape, vocab_size), jax.random.key(0)))

    def rows(dtype, *rest):
        return jax.ShapeDtypeStruct((args.batch, length, *rest), dtype)

    target, reference, draft = model(args.target), model(args.draft), model(args.draft)
    batch, frozen = Batch(rows(jnp.int32), rows(jnp.bool_)), Frozen(target, reference)
    if way == "stored":
        hidden_BTD = rows(jnp.float32, target.config.hidden_size)
        batch = Batch(batch.tokens_BT, batch.loss_mask_BT, hidden_BTD, rows(jnp.float32))
        frozen = Frozen(target.unembedding())
    chunked = objectives.selective_distill(fraction=FRACTION, chunking=Chunking.for_backend(jax.default_backend()))
    optimizer = adamw(1e-4)
    step = make_step(whole_logits if way == "whole" else chunked, optimizer)
    state = jax.eval_shape(lambda draft: init_state(draft, optimizer, jax.random.key(0)), draft)
    analysis = step.lower(state, frozen, batch).compile().memory_analysis()
    return analysis.temp_size_in_bytes, analysis.argument_size_in_bytes


def whole_logits(model, frozen, batch):
    """`objectives.selective_distill` without chunks."""
    import jax
    import jax.numpy as jnp

    from adaspec_jax.training.divergences import forward_kl, gap
    from adaspec_jax.training.selection import select_top_fraction

    mask_BT = jnp.roll(batch.loss_mask_BT, -1, axis=1).at[:, -1].set(False)
    logits_BTV = model(batch.tokens_BT)[0]
    target_BTV, reference_BTV = (
        jax.lax.stop_gradient(m(batch.tokens_BT)[0]) for m in (frozen.target, frozen.reference)
    )
    gap_BT = gap(forward_kl, jax.lax.stop_gradient(logits_BTV), reference_BTV, target_BTV)
    kept_BT = select_top_fraction(gap_BT, mask_BT, FRACTION)
    kl_BT = forward_kl(logits_BTV, target_BTV)
    return jnp.sum(jnp.where(kept_BT, kl_BT, 0.0)) / jnp.maximum(jnp.sum(kept_BT), 1), {}


if __name__ == "__main__":
    main()
