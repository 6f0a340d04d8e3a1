"""What sizes say before anything runs: bytes, the roofline, and the acceptance a draft needs."""

from __future__ import annotations

import math
from typing import Any

import jax

from adaspec_jax import models
from adaspec_jax.decoding.speedup import best_draft_length, break_even_alpha, speedup
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import Needed
from adaspec_jax.devices.topologies import Chip
from adaspec_jax.models.ring import ring_size
from adaspec_jax.pipeline.layout import row_groups
from adaspec_jax.pipeline.memory import Memory

DRAFT_LENGTHS = (1, 2, 3, 5, 8)


def verdict(c: float, v, alpha_percent: float | None) -> dict[str, Any]:
    """What acceptance each draft length needs to gain anything, and what the published one would give."""
    needs = {str(n): break_even_alpha(n, c, v(n)) for n in DRAFT_LENGTHS}
    found: dict[str, Any] = {"draft_step_cost": c, "verification_cost": v(5), "alpha_needed": needs}
    if alpha_percent:
        alpha = alpha_percent / 100
        best, gain = best_draft_length(alpha, c, v)
        gains = {str(n): speedup(alpha, n, c, v(n)) for n in DRAFT_LENGTHS}
        found |= {"published_alpha": alpha, "speedup": gains, "best_draft_length": best, "best_speedup": gain}
    return found


def call_seconds(
    chip: Chip, mesh: sharding.Mesh, model: models.CausalLM, table: sharding.Table, *, rows: int, width: int, slots: int
) -> float:
    """The bound of one cached call: weights and a half-full cache are read, or the products computed."""
    c, item = model.config, jax.tree.leaves(model.params)[0].dtype.itemsize
    cut = 1 if table is sharding.REPLICATED else mesh.shape["tensor"]
    groups = row_groups(mesh)
    # Parts cut along fsdp are gathered, so that every device reads all of them; rows are shared out.
    cache = rows / groups * _tokens_read(c, slots) * 2 * c.num_kv_heads * c.head_dim / cut
    tokens = rows / groups * width
    read = (size_read(model, tokens) / cut + cache) * item
    return max(read / chip.bandwidth, 2.0 * tokens * size_read(model, 1) / cut / chip.flops)


def _tokens_read(config: Any, slots: int) -> float:
    """Of a half-full cache, in all layers together; those with a window hold it and what is not settled."""
    windows = getattr(config, "windows", ()) or (0,) * config.num_layers
    return sum(min(slots / 2, ring_size(window, slots)) for window in windows)


def activations(model: models.CausalLM, memory: Memory, mesh: sharding.Mesh, tokens: int) -> int:
    """Bytes of a step beside its arguments, roughly: a float32 gradient, and what layers keep of each token."""
    c = model.config
    item = 4 if memory.master == "float32" else 2
    gradient = 0 if memory.lora_rank else item * size_of(model) / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    inside = (8 * c.hidden_size + 3 * getattr(c, "inside", c.intermediate_size)) * 2
    per_token = c.num_layers * 2 * c.hidden_size + inside if memory.rematerialise else c.num_layers * inside
    return int(gradient + tokens * per_token)


def argument_bytes(tree: Any) -> int:
    """Of the part of each abstract array that one device holds."""
    leaves = jax.tree.leaves(tree)
    shapes = (x.sharding.shard_shape(x.shape) if x.sharding else x.shape for x in leaves)
    return sum(math.prod(shape) * x.dtype.itemsize for shape, x in zip(shapes, leaves, strict=True))


def bytes_of_parts(plan: Needed | None) -> dict[str, int | None]:
    names = "arguments_bytes", "temporaries_bytes", "outputs_bytes"
    if plan is None:
        return dict.fromkeys(names)
    return dict(zip(names, (plan.arguments, plan.temporaries, plan.outputs), strict=True))


def size_of(model: models.CausalLM) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.params))


def size_read(model: models.CausalLM, tokens: float) -> float:
    """Parameters that so many tokens need: of a mixture, in the mean where each chooses its experts evenly, alone."""
    if not (experts := getattr(model.config, "experts", 0)):
        return size_of(model)
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    in_experts = sum(math.prod(leaf.shape) for path, leaf in leaves if any(k.key == "experts" for k in path))
    unread = (1 - model.config.experts_per_token / experts) ** tokens
    return size_of(model) - in_experts * unread
