"""The CTC loss of a head's guesses at places in a row, as CTC drafting trains it (Wen et al. 2024, arXiv 2412.00061).

A window is `frames` places in a row, each of whose laws is made of the text's own states; its label is what the target
finds likeliest at the first `labels` of them. Of a law over V tokens the loss reads those of the blank and of the
labels in reach, so that windows hold these alone, and what is left of each law is one column more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.models import CausalLM
from adaspec_jax.models.heads import Head, following
from adaspec_jax.training.label_chunks import Chunking

_NEVER = -1e5  # optax's logarithm of 0


def misalignment(
    head: Head,
    target: CausalLM,
    made_BTD: Array,
    taught_BTD: Array,
    mask_BT: Array,
    kept_BT: Array,
    chunking: Chunking,
    *,
    normalize: Literal["paper", "official"],
) -> Array:
    """The mean over windows of the CTC loss per label token, as torch's mean is.

    A window counts where all its frames guess labels, and the blank is none of its own; of a selection, where its first
    label is kept (the mean is over those with `normalize` "paper", else over all).
    """
    kind: Any = head.config  # of a kind with an alignment
    likeliest_BT = _in_chunks(
        lambda taught_BCD: jnp.argmax(target.unembed(taught_BCD), axis=-1), taught_BTD, kind.vocab_size, chunking
    )
    likeliest_BT = jax.lax.stop_gradient(likeliest_BT)
    reach = range(1 - kind.frames, kind.labels)
    ids_BTL = jnp.stack([following(likeliest_BT, offset) for offset in reach], axis=-1)
    ids_BTL = jnp.pad(ids_BTL, ((0, 0), (0, 0), (0, 1)), constant_values=kind.blank_column)

    def spoken(given: tuple[Array, Array]) -> Array:
        made_BCD, ids_BCL = given
        logits_BCV = head.logits(target, made_BCD)
        whole_BC1 = jax.nn.logsumexp(logits_BCV, axis=-1, keepdims=True)
        return jnp.take_along_axis(logits_BCV, ids_BCL, axis=-1) - whole_BC1

    spoken_BTL = _in_chunks(spoken, (made_BTD, ids_BTL), kind.vocab_size, chunking)
    labels_BTK = jnp.stack([following(likeliest_BT, k) for k in range(kind.labels)], axis=-1)
    counts_BT = jnp.all(jnp.stack([following(mask_BT, j) for j in range(kind.frames)]), axis=0)
    counts_BT &= (jnp.arange(mask_BT.shape[1]) <= mask_BT.shape[1] - kind.frames)[None]
    counts_BT &= jnp.all(labels_BTK != kind.blank_column, axis=-1)
    each_BT = _ctc(_windows(spoken_BTL, kind.frames, kind.labels), labels_BTK) / kind.labels
    judged_BT = counts_BT & kept_BT
    count = jnp.sum(judged_BT if normalize == "paper" else counts_BT)
    return jnp.sum(jnp.where(judged_BT, each_BT, 0.0)) / jnp.maximum(count, 1)


def _windows(spoken_BTL: Array, frames: int, labels: int) -> Array:
    """[B, T, frames, 1 + labels]: of the window that begins at t, at each frame, the blank's and the labels' logs."""
    of_label = [
        [following(spoken_BTL[..., frames - 1 + k - j], j) for k in range(labels)]  # as far as it lies from the frame
        for j in range(frames)
    ]
    blank = [following(spoken_BTL[..., -1], j) for j in range(frames)]
    return jnp.stack([jnp.stack([b, *row], axis=-1) for b, row in zip(blank, of_label, strict=True)], axis=-2)


def _ctc(spoken_BTFK: Array, labels_BTK: Array) -> Array:
    """[B, T]: the loss of every window."""
    (batch, length, frames, _), labels = spoken_BTFK.shape, labels_BTK.shape[-1]
    alike_BTKK = labels_BTK[..., None] == labels_BTK[..., None, :]
    first_BTK = jnp.argmax(alike_BTKK, axis=-1)  # a token that is said again has one column
    own_BT1K = (first_BTK == jnp.arange(labels)[None, None])[..., None, :]
    own_BT1K = jnp.pad(own_BT1K, ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=True)
    said_BTFK = jnp.where(own_BT1K, spoken_BTFK, _NEVER)
    rest_BTF1 = jnp.log(jnp.maximum(1 - jnp.sum(jnp.exp(said_BTFK), axis=-1, keepdims=True), 1e-7))
    laws = jnp.concatenate([said_BTFK, rest_BTF1], axis=-1).reshape(batch * length, frames, -1)
    ids = (1 + first_BTK).reshape(batch * length, labels)
    loss = optax.ctc_loss(laws, jnp.zeros(laws.shape[:2]), ids, jnp.zeros(ids.shape))
    return loss.reshape(batch, length)


def _in_chunks(function: Callable[[Any], Array], arrays: Any, vocab_size: int, chunking: Chunking) -> Array:
    """`function` of arrays [B, T, ...], for so many places at once that their logits are a chunk's; differentiable."""
    batch, length = jax.tree.leaves(arrays)[0].shape[:2]
    places = max(chunking.size(batch * length // chunking.groups, vocab_size) * chunking.groups // batch, 1)
    if places >= length:
        return function(arrays)

    def cut(array: Array) -> Array:
        array = jnp.pad(array, ((0, 0), (0, -length % places), *((0, 0),) * (array.ndim - 2)))
        return jnp.moveaxis(array.reshape(batch, -1, places, *array.shape[2:]), 1, 0)

    made = jnp.moveaxis(jax.lax.map(jax.checkpoint(function), jax.tree.map(cut, arrays)), 0, 1)
    return made.reshape(batch, -1, *made.shape[3:])[:, :length]
