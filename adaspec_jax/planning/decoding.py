"""What decoding with a draft needs and takes: the whole speculative program, and what a round of it reads."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from adaspec_jax import models
from adaspec_jax.config import Evaluation
from adaspec_jax.decoding import Context, Sampling, generate
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import abstract
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.models.heads import Head
from adaspec_jax.planning.roofline import call_seconds, size_read, verdict
from adaspec_jax.planning.slices import Slice

DECODING_SHARE = 0.6  # of the roofline bound; assumed, and said so beside every time
GAMMA = 5  # guesses per round, where the evaluation chooses them by what it measures


def plan_decoding(
    on: Slice,
    target: models.CausalLM,
    draft: models.CausalLM | Head,
    *,
    table: sharding.Table,
    spec: Evaluation,
    length: int,
    published: float | None,
    search: bool = True,
) -> dict[str, Any]:
    """Figures of measuring a draft, per device.

    Args:
      table: how the draft lies on the mesh.
      length: tokens of the padded prompts.
      published: acceptance in percent, for the verdict.
      search: for the largest batch.
    """
    rows = spec.batch_size
    program = functools.cache(partial(_program, on, target, draft, table, spec, length))
    _, sized = program(rows)
    figures = on.figures(sized, rows=rows, length=length) | {"chosen": "nothing given up to save memory"}
    if search and on.limit and on.compiling:
        figures["largest_batch"] = on.largest(rows, sized.size, on.groups, lambda n: program(n)[1].size)
    chip = on.topology.chip
    if chip is None:
        return figures | dict.fromkeys(("flops", "step_seconds", "tokens_per_second", "break_even"))
    seconds = partial(call_seconds, chip, on.mesh, rows=rows, slots=length + spec.max_new_tokens)
    plain = seconds(target, sharding.TABLE, width=1)
    c = seconds(draft, table, width=1) / plain
    if isinstance(draft, Head):
        c /= draft.config.guesses or 1  # of one call
        c += draft.config.runs_target / (draft.config.guesses or 1)  # of one pass of it
        c += draft.config.first_layers / target.config.num_layers
        if not draft.config.outward(draft.params, 0):  # the target's output matrix is read too, and no cache of it
            c += seconds(target.unembedding(), sharding.TABLE, width=1, slots=0) / plain
    return figures | {
        "flops": 2.0 * rows * size_read(target, 1),
        "step_seconds": plain / DECODING_SHARE,
        "roofline_seconds": plain,
        "tokens_per_second": rows * DECODING_SHARE / plain,
        "break_even": verdict(c, lambda n: seconds(target, sharding.TABLE, width=n + 1) / plain, published),
    }


def _program(on: Slice, target, draft, table: sharding.Table, spec: Evaluation, prompt: int, rows: int):
    """`Slice.program` of decoding so many prompts."""
    length = spec.draft_length or GAMMA
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32, sharding=NamedSharding(on.mesh, sharding.BATCH))
    decode = partial(
        generate,
        key=jax.random.key(0),
        max_new_tokens=spec.max_new_tokens,
        sampling=Sampling(temperature=spec.temperature),
        eos_id=0,
    )
    return on.program(
        jax.jit(lambda target, draft, prompt: decode(target, chain_of(draft, target, length), prompt)),
        abstract(target, on.mesh),
        abstract(draft, on.mesh, table),
        Context(shape((rows, prompt)), shape((rows,))),
        more=0,
    )
