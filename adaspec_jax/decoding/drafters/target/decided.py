"""The target's hidden states at what the last round decided, for heads that read them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.types import Context, Proposal


def decided(context: Context, depth: int) -> tuple[Array, Array]:
    """(features_BWF, start_B): the hidden states from the last round's root on, W = `depth` + 1, and its position.

    Those after the last accepted guess mean nothing. Before the first round the root is the last prompt token but one;
    where the prompt is one token there is none, and what is said of it means nothing.
    """
    path_BW = jnp.pad(context.path_BN[:, :depth] + 1, ((0, 0), (1, 0)))
    features_BMF = jnp.concatenate(context.hidden, axis=-1)
    features_BWF = jnp.take_along_axis(features_BMF, path_BW[..., None], axis=1)
    return features_BWF, jnp.maximum(context.lengths_B - 2 - context.accepted_B, 0)


def last_decided(context: Context, values_BWD: Array) -> Array:
    """The value at the last of `decided`'s hidden states: that before the last committed token."""
    return jnp.take_along_axis(values_BWD, context.accepted_B[:, None, None], axis=1)[:, 0]


def with_features(context: Context, proposal: Proposal) -> Proposal:
    """The proposal without the guesses of rows that have no hidden state before their last token."""
    has_B1 = (context.lengths_B > 1)[:, None]
    valid_BN = jnp.broadcast_to(has_B1, proposal.tokens_BN.shape)
    if proposal.valid_BN is not None:
        valid_BN &= proposal.valid_BN
    return dataclasses.replace(proposal, valid_BN=valid_BN)
