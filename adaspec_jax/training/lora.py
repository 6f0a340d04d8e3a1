"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): what a stage fits where a whole model would not fit.

The base stays frozen, in the type of the computation; gradients and moments exist for the adapters alone. Every linear
layer of attention and MLP gets one, with alpha = rank, so that the update is A B as it stands. In a mixture of experts
those are the attention's: routers and experts stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models import CausalLM
from adaspec_jax.training.objectives import Batch, Frozen, Objective
from adaspec_jax.training.objectives.batch import Metrics

A, B = "lora_a", "lora_b"
LEFT = ("router", "experts")  # without updates


def init_lora(model: CausalLM, rank: int, key: Array) -> CausalLM:
    """Float32 adapters [.., in, rank] and [.., rank, out] of a model; the second are zero, so nothing changes yet."""
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    count = 0

    def pair(linear: dict) -> dict:
        nonlocal count
        count += 1
        *stack, wide, out = linear["kernel"].shape
        down = jax.random.normal(jax.random.fold_in(key, count), (*stack, wide, rank)) * wide**-0.5
        return {A: down, B: jnp.zeros((*stack, rank, out))}

    layers = {name: layer for name, layer in model.params.items() if name.startswith("layers")}
    params = {name: _linears(layer, pair, keep=False) for name, layer in layers.items()}
    return replace(model, params=params)


def attached(base: CausalLM, adapters: CausalLM) -> CausalLM:
    """The base with its adapters beside the kernels they change."""
    return replace(base, params=_united(base.params, adapters.params))


def merged(base: CausalLM, adapters: CausalLM) -> CausalLM:
    """The base with W + A B in place of every W, in its own type: an ordinary model, to be saved and served."""

    def merge(linear: dict) -> dict:
        update = jnp.matmul(linear[A], linear[B], precision="highest")
        kernel = (linear["kernel"].astype(jnp.float32) + update).astype(linear["kernel"].dtype)
        return {name: value for name, value in linear.items() if name not in (A, B)} | {"kernel": kernel}

    both = attached(base, adapters).params
    changed = {name: _linears(both[name], merge) for name in adapters.params}
    return replace(base, params=both | changed)


def adapting(objective: Objective) -> Objective:
    """The objective as one of adapters alone: `frozen.base` is the model they belong to."""

    def of_adapters(adapters: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        return objective(attached(jax.lax.stop_gradient(frozen.base), adapters), frozen, batch)

    return of_adapters


def _linears(tree: dict, change: Callable[[dict], dict], *, keep: bool = True) -> dict:
    """The tree with every linear layer changed, and everything else kept or left out."""
    if "kernel" in tree:
        return change(tree)
    changes = lambda name, x: isinstance(x, dict) and name not in LEFT  # noqa: E731
    inside = {name: _linears(x, change, keep=keep) if changes(name, x) else x for name, x in tree.items()}
    return {name: x for name, x in inside.items() if keep or (changes(name, x) and x)}


def _united(base: Any, more: Any) -> Any:
    if not isinstance(more, dict):
        return more
    return dict(base) | {name: _united(base.get(name, {}), value) for name, value in more.items()}
