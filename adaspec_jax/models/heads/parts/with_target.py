"""A head with what it shares with its target: what the drafters of its kind hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.kv_cache import KVCache


@dataclass(frozen=True)
class WithTarget:
    """A pytree of the two; a subclass says what decoding asks of a kind of heads."""

    head: Head
    target: CausalLM

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        jax.tree_util.register_dataclass(cls, data_fields=["head", "target"], meta_fields=[])

    @property
    def layers(self) -> tuple[int, ...]:
        return self.head.config.layers

    @property
    def guesses(self) -> int:
        """Tokens that it can guess in a row; 0: as many as one likes."""
        return self.head.config.guesses

    def unembed(self, made: Array) -> Array:
        """Float32 logits [..., V]."""
        return self.head.logits(self.target, made)

    def init_cache(self, batch_size: int, slots: int) -> Any:
        """Of its own layers."""
        kind = self.head.config
        sizes = {"layers": kind.num_layers, "kv_heads": kind.num_kv_heads, "head_dim": kind.head_dim}
        return KVCache.zeros(batch_size, slots, **sizes, dtype=self.head.dtype)
