"""Heads on the target's first layers: one reads the hidden state there at a position, and guesses the token after it.

So it needs the target's own first layers at each of its guesses: they are run on these, in the target's own cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class Early(Kind):
    """Reads what the target's first `exit_layer` layers make, and takes its output matrix."""

    exit_layer: int = 2

    def __post_init__(self) -> None:
        check_knobs(self, counts=("exit_layer",))
        if self.exit_layer >= self.sizes.num_layers:
            layers = self.sizes.num_layers
            raise ValueError(f"exit_layer is {self.exit_layer}; the target has {layers} layers, so it must be below")
        layer.layer_config(self)  # which refuses sizes that it cannot have

    @property
    def layer(self) -> DecoderConfig:
        return layer.layer_config(self)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.exit_layer - 1,)

    @property
    def first_layers(self) -> int:
        return self.exit_layer

    @property
    def terms(self) -> tuple[Term, ...]:
        return (Term(0),)

    def read(self, params: Any, features_BTD: Array, cache: KVCache) -> tuple[Array, KVCache]:
        """(what the output matrix reads [B, T, D], the cache T entries longer), as `guessed` makes it of texts."""
        raise NotImplementedError

    def outward(self, params: Any, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)

    def on_target(self, head: Head, target: CausalLM) -> OnFirstLayers:
        return OnFirstLayers(head, target)


class OnFirstLayers(WithTarget):
    """A head beside the whole target, whose first layers are run with it, for decoding."""

    @property
    def exit_layer(self) -> int:
        return self.head.config.exit_layer

    def early(self, tokens_BT: Array, cache: KVCache) -> tuple[Array, KVCache]:
        """(hidden_BTD after the target's first layers, the target's cache with these tokens in those layers)."""
        ran = self.target.run(tokens_BT, cache, last=self.exit_layer)
        assert ran.cache is not None, "the target runs with a cache"
        return ran.hidden, ran.cache

    def read(self, hidden_BTD: Array, cache: KVCache) -> tuple[Array, KVCache]:
        """(made_BTD for `unembed`, the head's own cache T entries longer) of hidden states at the exit."""
        return self.head.config.read(self.head.params, hidden_BTD, cache)
