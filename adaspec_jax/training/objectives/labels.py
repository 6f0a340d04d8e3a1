"""Supervised labels: which they are, what the target says there, hidden states in parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.data.token_classes import TOKEN_CLASSES
from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.heads.parts.texts import begins
from adaspec_jax.training.label_chunks import Chunking
from adaspec_jax.training.objectives.batch import Batch

Features = Callable[[Any, Batch], Array]  # (model, batch) -> hidden_BTD


def labels_of(batch: Batch) -> tuple[Array, Array]:
    """The token after each position, and whether it is a label. The last position has none."""
    tokens_BT, mask_BT = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.loss_mask_BT, bool)
    return jnp.roll(tokens_BT, -1, axis=1), jnp.roll(mask_BT, -1, axis=1).at[:, -1].set(False)


def guessing_labels(batch: Batch, shift: int) -> Array:
    """bool [B, T]: whether the token at t + 1 + `shift` is a label, and of the text that place t is in."""
    return begins(labels_of(batch)[1], batch.segments_BT, shift)


def by_class(classes_V: Array | None, batch: Batch, **chosen_BT: Array) -> dict[str, Array]:
    """{"NAME_by_class": int32 [C]}: how many labels of each class are chosen; {} where classes are not known."""
    if classes_V is None:
        return {}
    class_BT = jnp.take(jnp.asarray(classes_V), labels_of(batch)[0], mode="clip")
    is_of_BTC = class_BT[..., None] == jnp.arange(len(TOKEN_CLASSES))[None, None]
    return {
        f"{name}_by_class": jnp.sum(is_of_BTC & mask_BT[..., None], axis=(0, 1), dtype=jnp.int32)
        for name, mask_BT in chosen_BT.items()
    }


def taught_of(target: Any, batch: Batch, features: Features) -> Any:
    """What `lesson_of` takes: the target's likeliest tokens, or its final hidden states, stored or computed now."""
    if batch.target_ids_BTK is not None:
        return batch.target_ids_BTK, batch.target_log_probs_BTK
    stored = batch.target_hidden_BTD
    return jax.lax.stop_gradient(features(target, batch) if stored is None else stored)


def features_in_parts(micro_batches: int, chunking: Chunking) -> Features:
    """Final hidden states [B, T, D] of a model, computed `in_parts`."""

    def features(model: Any, given: Batch) -> Array:
        inputs = (given.tokens_BT, given.segments_BT)
        return in_parts(_features, model, inputs, micro_batches=micro_batches, chunking=chunking)

    return features


def in_parts(
    function: Callable[[Any, Any], Any], model: Any, inputs: Any, *, micro_batches: int, chunking: Chunking
) -> Any:
    """`function(model, inputs)`, arrays [B, T, ...] of arrays [B, T, ...], for parts of the rows one after another.

    Each part has rows of every group, so that no row moves to another device; the backward pass computes it again.
    """
    if micro_batches == 1:
        return function(model, inputs)
    groups, batch = chunking.groups, len(jax.tree.leaves(inputs)[0])
    if batch % (groups * micro_batches):
        parts = f"{micro_batches} micro-batches" + f" on each of {groups} groups of devices" * (groups > 1)
        raise ValueError(f"a batch of {batch} rows does not divide into {parts}")
    rows = batch // (groups * micro_batches)

    def parted(array: Array) -> Array:
        rest = array.shape[1:]
        parts = jnp.asarray(array).reshape(groups, micro_batches, rows, *rest).swapaxes(0, 1)
        return constrain(parts.reshape(micro_batches, groups * rows, *rest), None, ROWS, *(None,) * len(rest))

    def whole(parts: Array) -> Array:
        rest = parts.shape[2:]
        made = parts.reshape(micro_batches, groups, rows, *rest).swapaxes(0, 1)
        return constrain(made.reshape(batch, *rest), ROWS, *(None,) * len(rest))

    made = jax.lax.map(jax.checkpoint(partial(function, model)), jax.tree.map(parted, inputs))
    return jax.tree.map(whole, made)


def _features(model: Any, inputs: tuple[Array, Array | None]) -> Array:
    tokens_BT, segments_BT = inputs
    return model.features(tokens_BT, **({} if segments_BT is None else {"segments_BT": segments_BT}))[0]


def vocab_size_of(model: Any, hidden_BTD: Array) -> int:
    return jax.eval_shape(model.unembed, hidden_BTD).shape[-1]


def count_of(mask_BT: Array) -> Array:
    return jnp.maximum(jnp.sum(mask_BT), 1)


def mean_over(values_BT: Array, mask_BT: Array) -> Array:
    return jnp.sum(jnp.where(mask_BT, values_BT, 0.0), dtype=jnp.float32) / count_of(mask_BT)


def rows_beside(array_BIT: Array) -> Array:
    """[B, I, T, ...] as [B I, T, ...]: a row's terms or exits stay beside each other, and so on its device."""
    return array_BIT.reshape(-1, *array_BIT.shape[2:])
