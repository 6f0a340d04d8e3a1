"""Texts of a batch as heads read them: the target's hidden states along them, what follows, and places in them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM


def features_of(target: CausalLM, tokens_BT: Array, layers: tuple[int, ...], segments_BT: Array | None = None) -> Array:
    """[B, T, n D]: the target's hidden states after these layers, side by side in this order; no gradient."""
    where = {} if segments_BT is None else {"segments_BT": segments_BT}
    if layers == (-1,):
        return jax.lax.stop_gradient(target.features(tokens_BT, **where)[0])
    last = None if layers[-1] == -1 else max(layers) + 1
    ran = target.run(tokens_BT, taps=layers, last=last, **where)
    return jax.lax.stop_gradient(jnp.concatenate(ran.taps, axis=-1))


def following(array_BT: Array, shift: int) -> Array:
    """Column t holds what stood at t + `shift`; the last columns mean nothing."""
    return jnp.roll(array_BT, -shift, axis=1)


class Places(NamedTuple):
    """Where along texts guesses begin, in place of every position: N of each row, in whatever order."""

    at_BN: Array  # int32, positions as `Term` means them
    real_BIN: Array  # bool: it is one, and has the i-th guess; [B, 1, N] where all its guesses are alike

    def take(self, array_BT: Array, shift: int = 0) -> Array:
        """[B, N, ...]: what stands `shift` further on than each; past the end it means nothing."""
        at_BN = jnp.minimum(self.at_BN + shift, array_BT.shape[1] - 1)
        return jnp.take_along_axis(array_BT, at_BN.reshape(*at_BN.shape, *(1,) * (array_BT.ndim - 2)), axis=1)

    @classmethod
    def everywhere(cls, tokens_BT: Array) -> Places:
        batch, length = tokens_BT.shape
        at_BN = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (batch, length))
        return cls(at_BN, jnp.ones((batch, 1, length), bool))

    @classmethod
    def drawn(cls, key: Array, fit_BT: Array, count: int) -> Places:
        """At most `count` of the positions that are fit, of each row; where those are fewer, others that are none."""
        random_BT = jnp.where(fit_BT, jax.random.uniform(key, fit_BT.shape), 2.0)
        at_BN = jnp.argsort(random_BT, axis=1)[:, :count].astype(jnp.int32)
        return cls(at_BN, jnp.take_along_axis(fit_BT, at_BN, axis=1)[:, None])


def begins(labels_BT: Array, segments_BT: Array | None, shift: int) -> Array:
    """bool [B, T]: where the guess `shift` further on is of a label, in the same text."""
    begins_BT = following(labels_BT, shift) & (jnp.arange(labels_BT.shape[1]) < labels_BT.shape[1] - shift)[None]
    if segments_BT is not None:
        begins_BT &= following(segments_BT, shift) == segments_BT
    return begins_BT
