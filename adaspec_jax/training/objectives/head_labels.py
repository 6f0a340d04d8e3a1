"""What heads guess in training: the labels of their terms, where they stand, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.heads import Head, Kind, Places, Term, features_of, following
from adaspec_jax.models.heads.parts.texts import begins
from adaspec_jax.training.label_chunks import Chunking
from adaspec_jax.training.objectives.batch import Batch, Frozen
from adaspec_jax.training.objectives.labels import in_parts, labels_of


class Seen(NamedTuple):
    """What the target makes of a batch, and where the head's guesses begin."""

    features_BTF: Array
    hidden_BTD: Array  # after the final norm
    labels_BT: Array
    mask_BT: Array
    places: Places | None  # None: at every position


class Labels(NamedTuple):
    """What I terms guess at every place: the token, whether it is a label, the target's hidden state there."""

    tokens_BIT: Array
    mask_BIT: Array
    hidden_BITD: Array
    segments_BT: Array | None  # which text of its row each place is in

    @property
    def all(self) -> range:
        return range(self.mask_BIT.shape[1])


def seen_by(head: Head, frozen: Frozen, batch: Batch) -> Seen:
    layers, target = head.config.layers, frozen.target
    features_BTF = batch.target_features_BTF
    if features_BTF is None:
        features_BTF = features_of(target, batch.tokens_BT, head.config.taught_layers, batch.segments_BT)
    size = head.config.sizes.hidden_size
    hidden_BTD = features_BTF[..., -size:] if batch.target_hidden_BTD is None else batch.target_hidden_BTD
    labels_BT, mask_BT = labels_of(batch)
    key = jax.random.key(0) if frozen.now is None else jax.random.fold_in(frozen.now.key, 1)
    places = head.config.places(mask_BT, batch.segments_BT, key)
    return Seen(features_BTF[..., : len(layers) * size], hidden_BTD, labels_BT, mask_BT, places)


def guessed(head: Head, frozen: Frozen, batch: Batch, seen: Seen, chunking: Chunking, parts: int) -> tuple[Array, ...]:
    """The head's hidden states for each of its terms."""
    features_BTF = seen.features_BTF
    if head.config.noise and frozen.now is not None:
        length, key = features_BTF.shape[1], jax.random.fold_in(frozen.now.key, 0)
        uniform_BTF = jax.random.uniform(key, features_BTF.shape, jnp.float32, -0.5, 0.5)
        features_BTF += (uniform_BTF * head.config.noise * 512 / length).astype(features_BTF.dtype)

    def made(head: Head, given: Any) -> tuple[Array, ...]:
        tokens_BT, features_BTF, segments_BT, places, among_BT = given
        if places is None:
            return head.config.guessed_among(head, frozen.target, tokens_BT, features_BTF, segments_BT, among_BT)
        return head.config.guessed_at(head, frozen.target, tokens_BT, features_BTF, segments_BT, places)

    read_BT = batch.tokens_BT if batch.read_tokens_BT is None else batch.read_tokens_BT
    given = (read_BT, features_BTF, batch.segments_BT, seen.places, batch.places_BT)
    return in_parts(made, head, given, micro_batches=parts, chunking=chunking)


def labels_at(seen: Seen, batch: Batch, kind: Kind, several: Sequence[int]) -> Labels:
    """Of these terms, by their numbers."""
    if seen.places is not None:
        return _placed(seen, seen.places, batch, kind, several)
    terms: list[Term] = [kind.terms[i] for i in several]
    masks = [begins(seen.mask_BT, batch.segments_BT, term.shift) for term in terms]
    if batch.places_BT is not None:
        masks = [mask_BT & batch.places_BT for mask_BT in masks]
    tokens, hidden = ([following(x, term.shift) for term in terms] for x in (seen.labels_BT, seen.hidden_BTD))
    tokens_BIT, mask_BIT, hidden_BITD = (jnp.stack(x, axis=1) for x in (tokens, masks, hidden))
    return Labels(tokens_BIT, mask_BIT, hidden_BITD, batch.segments_BT)


def _placed(seen: Seen, places: Places, batch: Batch, kind: Kind, several: Sequence[int]) -> Labels:
    parts, real_BIN = [], places.real_BIN
    for i in several:
        shift, real_BN = kind.terms[i].shift, real_BIN[:, i if real_BIN.shape[1] > 1 else 0]
        mask_BN = real_BN & places.take(begins(seen.mask_BT, batch.segments_BT, shift))
        parts.append((places.take(seen.labels_BT, shift), mask_BN, places.take(seen.hidden_BTD, shift)))
    segments_BN = None if batch.segments_BT is None else places.take(batch.segments_BT)
    tokens_BIN, mask_BIN, hidden_BIND = (jnp.stack(x, axis=1) for x in zip(*parts, strict=True))
    return Labels(tokens_BIN, mask_BIN, hidden_BIND, segments_BN)


def weights_of(kind: Kind, several: Sequence[int], counted_BIT: Array, *, each_BIT: Array | None) -> Array:
    """[B, I, T] of each label in the loss: its term's weight over the number of that term's labels.

    `each_BIT`: weights of the labels of a kind whose terms count `together`, over the number of all labels.
    """
    if each_BIT is not None:
        return each_BIT / jnp.maximum(jnp.sum(counted_BIT), 1)
    count_I = jnp.maximum(jnp.sum(counted_BIT, axis=(0, 2)), 1)
    weight_I = jnp.asarray([kind.terms[i].weight for i in several], jnp.float32) / count_I
    return jnp.broadcast_to(weight_I[None, :, None], counted_BIT.shape)
