"""Lossy: Medusa's typical acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.longest import in_place_of_guesses, keep_longest
from adaspec_jax.decoding.acceptance.walk import at_token, follow
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class Typical:
    """Lossy when sampling: accepts a guess x with p(x) > min(epsilon, delta exp(-H(p))), H the entropy in nats.

    Medusa (arXiv 2401.10774; the defaults are those of its generating call). p is the target's law at the sampling's
    temperature with its filters, which theirs has not; their entropy adds 1e-5 to p within the logarithm. In a tree the
    longest path stays, of several the likeliest under the target, as in their code. The next token is a draw from p
    where the path ends. Theirs is the likeliest there in the fast form, else a draw from p cut at the same threshold.
    Greedy decoding writes the target's own text, by theirs too.
    """

    epsilon: float = 0.09
    delta: float = 0.3
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0 <= self.epsilon <= 1 and self.delta >= 0):
            raise ValueError(
                f"typical acceptance needs epsilon in [0, 1] and delta of at least 0, not {self.epsilon}, {self.delta}"
            )

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if sampling.greedy:
            return follow(proposal, most_likely(logits_BMV))
        logp_BNV = jax.nn.log_softmax(sampling.filtered(in_place_of_guesses(proposal, logits_BMV)))
        entropy_BN = -jnp.sum(jnp.where(logp_BNV > -jnp.inf, jnp.exp(logp_BNV) * logp_BNV, 0.0), axis=-1)
        logp_BN = at_token(logp_BNV, proposal.tokens_BN)
        passes_BN = jnp.exp(logp_BN) > jnp.minimum(self.epsilon, self.delta * jnp.exp(-entropy_BN))
        return keep_longest(key, proposal, logits_BMV, sampling, passes_BN, logp_BN)
