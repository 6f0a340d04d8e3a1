"""Heads that guess one token after another, each step from the step before: EAGLE's kind, and what is made like it.

At position t such a head reads the target's hidden state there and the token at t + 1, and guesses the token at t + 2;
its own output then stands for the hidden state that the target has not computed yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.texts import following
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class Recurrent(Kind):
    """One layer on [the next token's embedding, a hidden state], run `steps` times over its own outputs in training."""

    steps: int = 1  # of training; decoding goes on as long as it likes
    decay: float = 1.0  # of a step's weight in the loss, per step

    def __post_init__(self) -> None:
        check_knobs(self, counts=("steps",), shares=("decay",))
        layer.layer_config(self)  # which refuses sizes that it cannot have

    @property
    def layer(self) -> DecoderConfig:
        return layer.layer_config(self)

    def entered(self, params: Any, features: Array) -> Array:
        """A hidden state [..., D] of the target's, [..., n D]."""
        del params
        return features

    def joined(self, params: Any, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        """(what attention reads [..., W], the residual [..., D]) of a token's embedding and a hidden state."""
        raise NotImplementedError

    def handed_on(self, params: Any, hidden: Array) -> Array:
        """What the next step reads in place of a hidden state, of the layer's output."""
        del params
        return hidden

    @property
    def terms(self) -> tuple[Term, ...]:
        return tuple(Term(1 + i, self.decay**i) for i in range(self.steps))

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        params, made = head.params, []
        run = layer.Unrolled(self.layer, params["layer"], segments_BT, rematerialise=self.rematerialise)
        hidden_BTD = self.entered(params, features_BTF)
        for i in range(self.steps):
            embedded_BTD = jax.lax.stop_gradient(target.embedded(following(tokens_BT, 1 + i)))
            made.append(run.step(*self.joined(params, embedded_BTD.astype(hidden_BTD.dtype), hidden_BTD)))
            hidden_BTD = self.handed_on(params, made[-1])
        return tuple(made)

    def on_target(self, head: Head, target: CausalLM) -> OnTarget:
        return OnTarget(head, target.ends())


class OnTarget(WithTarget):
    """A head beside the target whose embeddings, and perhaps output matrix, it shares: a feature head for decoding."""

    def entered(self, features_BTF: Array) -> Array:
        """[B, T, D] of the target's hidden states at `layers`, side by side."""
        return self.head.config.entered(self.head.params, features_BTF)

    def read(
        self, hidden_BTD: Array, tokens_BT: Array, cache: KVCache, *, positions_BT=None, mask_BTS=None
    ) -> tuple[Array, Array, KVCache]:
        """(made_BTD for `unembed`, what the next step reads in place of a hidden state, the longer cache).

        Column t has a hidden state of position t and the token after it; positions are those of the hidden states.
        """
        config, params = self.head.config, self.head.params
        embedded_BTD = self.target.embedded(tokens_BT).astype(hidden_BTD.dtype)
        into_BTW, beside_BTD = config.joined(params, embedded_BTD, hidden_BTD)
        where = (cache, positions_BT, mask_BTS)
        made_BTD, cache = layer.read(config.layer, params["layer"], into_BTW, beside_BTD, *where)
        return made_BTD, config.handed_on(params, made_BTD), cache

    def unembed(self, made: Array) -> Array:
        """Float32 logits [..., V] of the token after the next."""
        return self.head.config.spread(self.head, self.head.logits(self.target, made))


def linear(key: Array, wide: int, out: int, spread: float) -> dict[str, Array]:
    """A kernel [wide, out] without a bias, normal(`spread`)."""
    return {"kernel": spread * jax.random.normal(key, (wide, out), jnp.float32)}
