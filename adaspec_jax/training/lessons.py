"""What a target says of a label, by what is known of it: its whole law, or its likeliest tokens."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from adaspec_jax.training.divergences import Divergence, forward_kl, gap
from adaspec_jax.training.top_k import top_k_forward_kl


class WholeLaw:
    """A target by its logits: any divergence."""

    def __init__(self, logits_GCV: Array) -> None:
        self._logits_GCV = logits_GCV

    def divergence(self, divergence: Divergence, logits_GCV: Array) -> Array:
        return divergence(logits_GCV, self._logits_GCV)

    def gap(self, divergence: Divergence, logits_GCV: Array, reference_GCV: Array) -> Array:
        return gap(divergence, logits_GCV, reference_GCV, self._logits_GCV)

    def agrees(self, logits_GCV: Array) -> Array:
        """Whether a likeliest token of the target is one of the model's: `argmax` equality, as XLA:CPU does it fast."""
        best = self._logits_GCV == jnp.max(self._logits_GCV, axis=-1, keepdims=True)
        return jnp.max(jnp.where(best, logits_GCV, -jnp.inf), axis=-1) == jnp.max(logits_GCV, axis=-1)


class LikeliestTokens:
    """A target by its K likeliest tokens: the forward KL alone."""

    def __init__(self, ids_GCK: Array, log_probs_GCK: Array) -> None:
        self._law = ids_GCK, log_probs_GCK

    def divergence(self, divergence: Divergence, logits_GCV: Array) -> Array:
        if divergence is not forward_kl:
            raise ValueError(f"{divergence.__name__} needs the target's whole law, not its likeliest tokens")
        return top_k_forward_kl(logits_GCV, *self._law)

    def gap(self, divergence: Divergence, logits_GCV: Array, reference_GCV: Array) -> Array:
        return self.divergence(divergence, logits_GCV) - self.divergence(divergence, reference_GCV)

    def agrees(self, logits_GCV: Array) -> Array:
        best_GC1 = self._law[0][..., :1]
        return jnp.take_along_axis(logits_GCV, best_GC1, axis=-1)[..., 0] == jnp.max(logits_GCV, axis=-1)


def lesson_of(target: Any, taught: Array | tuple[Array, Array]) -> WholeLaw | LikeliestTokens:
    """By final hidden states [.., D] and the target's output matrix, or by (ids, log-probabilities) [.., K]."""
    return LikeliestTokens(*taught) if isinstance(taught, tuple) else WholeLaw(target.unembed(taught))
