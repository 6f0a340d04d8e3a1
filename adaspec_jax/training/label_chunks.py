"""Functions of logits at the labels alone, one chunk of logits at a time.

Most of a distillation step's memory, and on small models most of its time, is [tokens, V] arrays. Here hidden states
are packed to the supervised positions first, and output matrix, divergence and gradient run over one chunk of them
after another: peak memory grows with the chunk, not with tokens x V. The loop runs over as many chunks as there are
labels to fill them, so positions without one cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class Chunking:
    """How the labels of a batch are cut.

    Each group holds at most `logits` entries of one model's logits at once, and at most `tokens` labels: on a CPU a
    chunk should stay near the cache. `groups`: equal runs of rows packed
    apart; as many as devices the rows are sharded over, so that no row moves to another device.
    """

    logits: int = 2**23
    tokens: int = 256
    groups: int = 1

    @classmethod
    def for_backend(cls, platform: str, groups: int = 1) -> Chunking:
        """The default sizes of a CPU or an accelerator ("gpu", "tpu": 512 MB of float32 logits)."""
        return cls(groups=groups) if platform == "cpu" else cls(2**27, 2**13, groups)

    def size(self, positions: int, vocab_size: int) -> int:
        """Labels per chunk and group; never so many that a batch of few labels pays for its other positions."""
        return max(min(self.logits // vocab_size, self.tokens, max(-(-positions // 8), 64), positions), 1)


class Sizes(TypedDict):
    """What the walks below must know of a model's labels."""

    vocab_size: int
    chunking: Chunking


DEFAULT = Chunking()
Values = dict[str, Array]
Loss = Callable[[Any, Array, Any, Any], tuple[Array, Values]]


def values_at(
    labels_BT: Array, function: Callable[[Any], Values], operands: Any, *, vocab_size: int, chunking: Chunking
) -> Values:
    """`function(operands)` where `labels_BT` is true, 0 elsewhere, as [B, T, ...]; carries no gradient.

    Args:
      labels_BT: bool; the positions to evaluate.
      function: takes operands of shape [G, C, ...] and returns values per token, {name: [G, C, ...]}; truth values come
        back as 0 and 1, integers as they are and everything else as float32.
      operands: a pytree of arrays [B, T, ...].
    """
    packed = _Packed(labels_BT, vocab_size, chunking)
    operands = jax.tree.map(packed.take, lax.stop_gradient(operands))
    empty = packed.empty(jax.eval_shape(function, _piece(operands, 0, packed.size)))

    def body(i: Array, values: Values) -> Values:
        return _written(values, function(_piece(operands, i, packed.size)), i, packed.size)

    return packed.back(lax.fori_loop(0, packed.chunks, body, empty))


def total_at(
    labels_BT: Array,
    function: Loss,
    model: Any,
    hidden_BTD: Array,
    operands: Any,
    frozen: Any,
    *,
    vocab_size: int,
    chunking: Chunking,
) -> tuple[Array, Values]:
    """The sum of a loss over the positions in `labels_BT`, and further values as [B, T]; differentiable.

    `function(model, hidden_GCD, operands, frozen) -> (loss_GC, {name: [G, C]})` is a pure function. The gradient with
    respect to `model` and `hidden_BTD` is formed chunk by chunk beside the loss, in float32, so that no chunk's logits
    outlive it; none flows to `operands` and `frozen`.
    """
    packed = _Packed(labels_BT, vocab_size, chunking)
    operands = jax.tree.map(packed.take, lax.stop_gradient(operands))
    hidden_GXD = packed.take(hidden_BTD)
    total, values = _total(function, packed.size, model, hidden_GXD, operands, frozen, packed.valid_GX, packed.chunks)
    return total, packed.back(values)


class _Packed:
    """Where the labels of each group lie: first in order, in chunks of `size`."""

    def __init__(self, labels_BT: Array, vocab_size: int, chunking: Chunking) -> None:
        labels_BT = jnp.asarray(labels_BT, bool)
        self.shape_BT, self.groups = labels_BT.shape, chunking.groups
        if labels_BT.shape[0] % self.groups:
            raise ValueError(f"a batch of {labels_BT.shape[0]} rows does not divide into {self.groups} groups")
        labels_GX = labels_BT.reshape(self.groups, -1)
        positions = labels_GX.shape[1]
        self.size = chunking.size(positions, vocab_size)
        padding = ((0, 0), (0, -positions % self.size))
        self.order_GX = jnp.pad(jnp.argsort(~labels_GX, axis=1, stable=True), padding)
        self.valid_GX = jnp.pad(jnp.sort(labels_GX, axis=1, descending=True), padding)
        self.chunks = -(-jnp.max(jnp.sum(labels_GX, axis=1)) // self.size)

    def take(self, leaf_BT: Array) -> Array:
        """[B, T, ...] -> [G, X, ...], labels first."""
        leaf_GX = leaf_BT.reshape(self.groups, -1, *leaf_BT.shape[2:])
        order = self.order_GX.reshape(*self.order_GX.shape, *(1,) * (leaf_GX.ndim - 2))
        return jnp.take_along_axis(leaf_GX, order, axis=1)

    def empty(self, shapes: dict[str, jax.ShapeDtypeStruct]) -> Values:
        """Zeros [G, X, ...] for values [G, C, ...]."""
        return {
            name: jnp.zeros(
                (*self.valid_GX.shape, *value.shape[2:]),
                value.dtype if jnp.issubdtype(value.dtype, jnp.integer) else jnp.float32,
            )
            for name, value in shapes.items()
        }

    def back(self, values: Values) -> Values:
        """[G, X, ...] -> [B, T, ...], 0 where there is no label."""
        rows = jnp.arange(self.groups)[:, None]

        def scatter(value_GX: Array) -> Array:
            rest = value_GX.shape[2:]
            valid_GX = self.valid_GX.reshape(*self.valid_GX.shape, *(1,) * len(rest))
            empty = jnp.zeros((self.groups, self.shape_BT[0] * self.shape_BT[1] // self.groups, *rest), value_GX.dtype)
            filled = empty.at[rows, self.order_GX].add(jnp.where(valid_GX, value_GX, 0))
            return filled.reshape(*self.shape_BT, *rest)

        return {name: scatter(value) for name, value in values.items()}


def _piece(tree: Any, i: int | Array, size: int) -> Any:
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, i * size, size, axis=1), tree)


def _written(values: Values, new: Values, i: Array, size: int) -> Values:
    return {
        name: lax.dynamic_update_slice_in_dim(whole, new[name].astype(whole.dtype), i * size, axis=1)
        for name, whole in values.items()
    }


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(
    function: Loss, size: int, model: Any, hidden_GXD: Array, operands: Any, frozen: Any, valid_GX: Array, chunks: Array
) -> tuple[Array, Values]:
    return _walk(function, size, model, hidden_GXD, operands, frozen, valid_GX, chunks, gradient=False)[:2]


def _forward(
    function: Loss, size: int, model: Any, hidden_GXD: Array, operands: Any, frozen: Any, valid_GX: Array, chunks: Array
) -> tuple[tuple[Array, Values], Any]:
    total, values, gradients = _walk(
        function, size, model, hidden_GXD, operands, frozen, valid_GX, chunks, gradient=True
    )
    return (total, values), jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, (model, hidden_GXD))


def _backward(function: Loss, size: int, gradients: Any, cotangents: Any) -> tuple[Any, ...]:
    del function, size
    total, _ = cotangents  # the values are for metrics
    model, hidden_GXD = jax.tree.map(lambda g: (total * g).astype(g.dtype), gradients)
    return model, hidden_GXD, None, None, None, None


_total.defvjp(_forward, _backward)


def _walk(
    function: Loss,
    size: int,
    model: Any,
    hidden_GXD: Array,
    operands: Any,
    frozen: Any,
    valid_GX: Array,
    chunks: Array,
    *,
    gradient: bool,
) -> tuple[Array, Values, Any]:
    """(total, values, (d model, d hidden) or None)."""

    def loss(model: Any, hidden_GCD: Array, i: Array | int) -> tuple[Array, Values]:
        losses_GC, values = function(model, hidden_GCD, _piece(operands, i, size), frozen)
        return jnp.sum(jnp.where(_piece(valid_GX, i, size), losses_GC, 0.0), dtype=jnp.float32), values

    def body(i: Array, carry: Any) -> Any:
        total, values, gradients = carry
        hidden_GCD = _piece(hidden_GXD, i, size)
        if gradients is None:
            added, new = loss(model, hidden_GCD, i)
        else:
            (added, new), (d_model, d_hidden_GCD) = jax.value_and_grad(loss, (0, 1), has_aux=True)(model, hidden_GCD, i)
            sums, d_hidden_GXD = gradients
            sums = jax.tree.map(lambda total, new: total + new.astype(jnp.float32), sums, d_model)
            d_hidden_GXD = lax.dynamic_update_slice_in_dim(
                d_hidden_GXD, d_hidden_GCD.astype(d_hidden_GXD.dtype), i * size, axis=1
            )
            gradients = (sums, d_hidden_GXD)
        return total + added, _written(values, new, i, size), gradients

    _, shapes = jax.eval_shape(loss, model, _piece(hidden_GXD, 0, size), 0)
    values = {name: jnp.zeros(valid_GX.shape, jnp.float32) for name in shapes}
    float32_zeros = partial(jax.tree.map, lambda leaf: jnp.zeros(leaf.shape, jnp.float32))
    gradients = (float32_zeros(model), jnp.zeros_like(hidden_GXD)) if gradient else None
    return lax.fori_loop(0, chunks, body, (jnp.zeros((), jnp.float32), values, gradients))
