"""The law tokens are drawn from: temperature, top-k and top-p, the same on target and draft."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; `top_k` 0 and `top_p` 1 keep every token. Filters apply after the temperature."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 (greedy) or positive, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def probs(self, logits_V: Array) -> Array:
        """The float32 law over the last axis; one-hot at the (first) most likely token when greedy."""
        logits_V = logits_V.astype(jnp.float32)
        if self.greedy:
            return jax.nn.one_hot(jnp.argmax(logits_V, axis=-1), logits_V.shape[-1], dtype=jnp.float32)
        logits_V = logits_V / self.temperature
        if 0 < self.top_k < logits_V.shape[-1]:
            kth = jax.lax.top_k(logits_V, self.top_k)[0][..., -1:]
            logits_V = jnp.where(logits_V < kth, -jnp.inf, logits_V)
        if self.top_p < 1:
            sorted_V = jnp.flip(jnp.sort(logits_V, axis=-1), axis=-1)
            probs_V = jax.nn.softmax(sorted_V, axis=-1)
            # The mass before a token decides, so the first always stays.
            inside_V = jnp.cumsum(probs_V, axis=-1) - probs_V < self.top_p
            last = jnp.min(jnp.where(inside_V, sorted_V, jnp.inf), axis=-1, keepdims=True)
            logits_V = jnp.where(logits_V < last, -jnp.inf, logits_V)
        return jax.nn.softmax(logits_V, axis=-1)

    def draw(self, key: Array, probs_V: Array) -> Array:
        """One token per row of `probs_V`, int32. Greedy takes the mode, so that no randomness enters."""
        if self.greedy:
            return jnp.argmax(probs_V, axis=-1).astype(jnp.int32)
        return jax.random.categorical(key, jnp.log(probs_V), axis=-1).astype(jnp.int32)


GREEDY = Sampling(temperature=0.0)
