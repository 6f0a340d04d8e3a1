"""Supervised labels: which they are, what the target says there, hidden states in parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.training.label_chunks import Chunking
from adaspec_jax.training.objectives.batch import Batch

Features = Callable[[Any, Batch], Array]  # (model, batch) -> hidden_BTD


def labels_of(batch: Batch) -> tuple[Array, Array]:
    """The token after each position, and whether it is a label. The last position has none."""
    tokens_BT, mask_BT = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.loss_mask_BT, bool)
    return jnp.roll(tokens_BT, -1, axis=1), jnp.roll(mask_BT, -1, axis=1).at[:, -1].set(False)


def taught_of(target, batch: Batch, features: Features) -> Array | tuple[Array, Array]:
    """What `lesson_of` takes: the target's likeliest tokens, or its final hidden states, stored or computed now."""
    if batch.target_ids_BTK is not None:
        return batch.target_ids_BTK, batch.target_log_probs_BTK
    stored = batch.target_hidden_BTD
    return jax.lax.stop_gradient(features(target, batch) if stored is None else stored)


def features_in_parts(micro_batches: int, chunking: Chunking) -> Features:
    """Final hidden states [B, T, D] of a model, computed for so many parts of the rows one after another.

    Each part has rows of every group, so that no row moves to another device.
    """
    groups = chunking.groups

    def features(model, given: Batch) -> Array:
        inputs = (given.tokens_BT, given.segments_BT)
        if micro_batches == 1:
            return _features(model, inputs)
        batch, length = given.tokens_BT.shape
        if batch % (groups * micro_batches):
            parts = f"{micro_batches} micro-batches" + f" on each of {groups} groups of devices" * (groups > 1)
            raise ValueError(f"a batch of {batch} rows does not divide into {parts}")
        rows = batch // (groups * micro_batches)

        def in_parts(rows_BT: Array) -> Array:
            parts_MRT = jnp.asarray(rows_BT).reshape(groups, micro_batches, rows, length).swapaxes(0, 1)
            return constrain(parts_MRT.reshape(micro_batches, groups * rows, length), None, ROWS, None)

        parts = jax.tree.map(in_parts, inputs)
        hidden_MRTD = jax.lax.map(jax.checkpoint(partial(_features, model)), parts)
        hidden = hidden_MRTD.reshape(micro_batches, groups, rows, length, -1).swapaxes(0, 1)
        return constrain(hidden.reshape(batch, length, -1), ROWS, None, None)

    return features


def _features(model, inputs: tuple[Array, Array | None]) -> Array:
    tokens_BT, segments_BT = inputs
    return model.features(tokens_BT, **({} if segments_BT is None else {"segments_BT": segments_BT}))[0]


def vocab_size_of(model, hidden_BTD: Array) -> int:
    return jax.eval_shape(model.unembed, hidden_BTD).shape[-1]


def count_of(mask_BT: Array) -> Array:
    return jnp.maximum(jnp.sum(mask_BT), 1)


def mean_over(values_BT: Array, mask_BT: Array) -> Array:
    return jnp.sum(jnp.where(mask_BT, values_BT, 0.0), dtype=jnp.float32) / count_of(mask_BT)
