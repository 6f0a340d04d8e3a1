"""Guesses in a row that know nothing of each other, each drawn from the law that is stated of it."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.types import Context, Proposal


def drawn_apart(key: Array, context: Context, logits_BNV: Array) -> Proposal:
    """A chain by logits that are processed already; point masses where text is settled, greedily or by shared noise."""
    opinion_BNV, sampling = logits_BNV if context.opinion else None, context.sampling
    if not sampling.settled:
        probs_BNV = sampling.probs(logits_BNV)
        return Proposal(sampling.draw(key, probs_BNV), probs_BNV=probs_BNV, opinion_BNV=opinion_BNV)
    if context.has_noise:
        logits_BNV = context.noisy(logits_BNV, context.lengths_B[:, None] + jnp.arange(logits_BNV.shape[1])[None])
    return Proposal(most_likely(logits_BNV), opinion_BNV=opinion_BNV)
