"""Which sublayers of a decoder run: all, or a set that leaves some out (self-speculation by skipped layers)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

Runs = bool | Array  # a bool is known when a program is traced; a traced one is decided on the device


def sublayers_of(keep: tuple[bool, ...] | np.ndarray | Array | None, layer: int) -> tuple[Runs, Runs]:
    """Whether (attention, MLP) of a layer run: entries 2 * layer and 2 * layer + 1 of `keep` [2L]; None keeps all."""
    if keep is None:
        return True, True
    attends, mixes = keep[2 * layer], keep[2 * layer + 1]
    return (attends, mixes) if isinstance(keep, jax.Array) else (bool(attends), bool(mixes))


def check_keep(keep: Any, num_layers: int) -> None:
    """ValueError unless `keep` says one thing for every sublayer."""
    if keep is not None and np.shape(keep) != (2 * num_layers,):
        raise ValueError(f"keep must say for each of {2 * num_layers} sublayers whether it runs, not {np.shape(keep)}")


def where_it_runs(runs: Runs, compute: Callable[[], Any], otherwise: Any) -> Any:
    """`compute()` where the sublayer runs, else `otherwise`; what is known when traced costs nothing on the device."""
    if isinstance(runs, bool):
        return compute() if runs else otherwise
    return jax.lax.cond(runs, compute, lambda: otherwise)
