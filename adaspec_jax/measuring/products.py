"""In which type decoding multiplies: what was asked for, and what the machine at hand does faster."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.placing import is_whole
from adaspec_jax.methods import Given
from adaspec_jax.models.decoding_layout import product

PAYS = 1.2  # times as fast as float32, from which on a machine counts as one with matrix units for bfloat16
_SIZES = (8, 2048, 8192)  # rows, in, out: a matrix of 64 MiB in float32, as decoding reads them
_REPEATS = 5


class Products(NamedTuple):
    """How products are computed, and in a line why, where that was not plain."""

    dtype: str | None  # what `CausalLM.for_decoding` takes
    notes: tuple[str, ...]


def chosen(asked: str, mesh: Mesh) -> Products:
    """`asked` is "float32" (the parameters' own type; nothing is measured), "bfloat16" or "auto".

    Both of the latter take bfloat16 where it is at least `PAYS` times as fast here, and say so; else float32. One
    process measures for all.
    UserError where models are to be cut over devices.
    """
    if asked == "float32":
        return Products(None, ())
    if not is_whole(mesh):
        raise UserError(f"matmul {asked} is for models that every device holds whole; leave tensor and fsdp out")
    times = processes.once(times_as_fast)
    measured = f"bfloat16 is {times:.2f} times as fast as float32 here, in a product of {_SIZES[0]} rows"
    if times >= PAYS:
        return Products("bfloat16", (f"matmul {asked}: products in bfloat16 with float32 sums ({measured})",))
    return Products(None, (f"matmul {asked}: products in float32, for want of matrix units ({measured})",))


def multiplied(given: Given, products: Products) -> Given:
    """The models with their products in that type; one that is both target and draft stays one."""
    if products.dtype is None:
        return given
    return given.changed(lambda model: model.for_decoding(products.dtype))


def times_as_fast() -> float:
    """What a small product in bfloat16 takes of the time it takes in float32, the other way round."""
    rows, wide, out = _SIZES
    seconds = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        weight_OI = jnp.full((out, wide), 0.5, dtype)
        seconds[dtype] = _seconds(jnp.ones((rows, wide)), weight_OI)
    return seconds[jnp.float32] / seconds[jnp.bfloat16]


def _seconds(rows_RI: Any, weight_OI: Any) -> float:
    multiply = jax.jit(product)
    jax.block_until_ready(multiply(rows_RI, weight_OI))
    found = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(multiply(rows_RI, weight_OI))
        found.append(time.perf_counter() - began)
    return statistics.median(found)
