"""AdamW with the settings of the paper's recipe, from optax parts; its moments whole, halved or factored."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

Schedule = Literal["constant", "linear", "cosine"]
Moments = Literal["float32", "bfloat16", "factored"]


def learning_rate(peak: float, *, steps: int, schedule: Schedule = "constant", warmup_steps: int = 0) -> optax.Schedule:
    """Linear warm-up from 0 to `peak`, then constant, or down to 0 at `steps` along a line or a cosine."""
    after = max(steps - warmup_steps, 1)
    tails = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(peak, after),
    }
    if schedule not in tails:
        raise ValueError(f'schedule must be one of {", ".join(tails)}, not "{schedule}"')
    tail = tails[schedule]()
    if not warmup_steps:
        return tail
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), tail], [warmup_steps])


def adamw(
    rate: optax.Schedule | float,
    *,
    weight_decay: float = 0.1,
    clip_norm: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    accumulate: int = 1,
    moments: Moments = "float32",
) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW; biases and norm scales do not decay, as in the PyTorch recipe.

    With `accumulate` > 1 the mean gradient of that many batches makes one update; each batch selects its own tokens.

    `moments` per parameter: "float32" 8 bytes; "bfloat16" 4, rounded stochastically, because at b2 = 0.999 most updates
    of the second moment are smaller than half a unit in its last place; "factored" almost none: rows and columns of
    the second moment and no first one, with the update's root mean square clipped at 1 (Adafactor, Shazeer and Stern
    2018, arXiv 1804.04235, with `rate` as the step size).
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []
    if moments == "factored":
        parts += [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)]
        parts += [optax.add_decayed_weights(weight_decay, mask=decays), optax.scale_by_learning_rate(rate)]
    else:
        adam = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays)
        parts.append(adam if moments == "float32" else kept_in_bfloat16(adam))
    chain = optax.chain(*parts)
    return optax.MultiSteps(chain, accumulate).gradient_transformation() if accumulate > 1 else chain


class KeptInBfloat16(NamedTuple):
    """State of `kept_in_bfloat16`."""

    count: Array  # type: ignore[assignment]  # a tuple's own `count` is no part of a state
    inner: Any


def kept_in_bfloat16(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation, computed in float32, with its state's float32 arrays kept in bfloat16 between steps."""

    def init(params: Any) -> KeptInBfloat16:
        inner = jax.tree.map(lambda x: _cast(x, jnp.float32, jnp.bfloat16), transformation.init(params))
        return KeptInBfloat16(jnp.zeros((), jnp.int32), inner)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, KeptInBfloat16]:
        inner = jax.tree.map(lambda x: _cast(x, jnp.bfloat16, jnp.float32), state.inner)
        updates, inner = transformation.update(updates, inner, params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        return updates, KeptInBfloat16(state.count + 1, rounded_like(inner, state.inner, key))

    return optax.GradientTransformation(init, update)


def rounded_like(tree: Any, like: Any, key: Array) -> Any:
    """The tree in the types of `like`; what becomes bfloat16 is rounded stochastically, each leaf by its own key."""
    leaves, structure = jax.tree.flatten(tree)
    rounded = [
        round_stochastically(leaf, jax.random.fold_in(key, i)) if to.dtype == jnp.bfloat16 else leaf.astype(to.dtype)
        for i, (leaf, to) in enumerate(zip(leaves, jax.tree.leaves(like), strict=True))
    ]
    return jax.tree.unflatten(structure, rounded)


def round_stochastically(array: Array, key: Array) -> Array:
    """Float32 to bfloat16, up or down with the probabilities that keep the mean; the same on any mesh.

    A bfloat16 is the upper half of a float32: a random lower half is added, and what does not carry is cut off.
    """
    bits = jax.lax.bitcast_convert_type(array.astype(jnp.float32), jnp.uint32)
    noise = jax.random.bits(key, array.shape, jnp.uint16).astype(jnp.uint32)
    cut = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(array), cut, array).astype(jnp.bfloat16)


def _cast(leaf: Array, before: Any, after: Any) -> Array:
    return leaf.astype(after) if leaf.dtype == before else leaf


def decays(params: Any) -> Any:
    """True for matrices and embeddings, by name: layers may be stacked."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key not in ("bias", "scale"), params)
