"""Lossy: a guess stays where the target finds it likely enough, as it finds its own best or by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.longest import in_place_of_guesses, keep_longest
from adaspec_jax.decoding.acceptance.walk import at_token
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class TopBeta:
    """Lossy: accepts a guess among the target's `beta` likeliest tokens, at most `tau` nats below the likeliest.

    SpecDec's verification (arXiv 2203.16487; 5 and 3.0 are their script's), by logits at temperature 1 without filters.
    The next token is drawn at the sampling's settings; theirs is the likeliest, as here when greedy. Greedy decoding
    with beta 1 writes the target's own text, and with more a text of its own. In a tree the longest path stays, of
    several the likeliest under the target (ours).
    """

    beta: int = 5
    tau: float = 3.0
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.beta >= 1 and self.tau >= 0):
            raise ValueError(f"top-beta needs beta of at least 1 and tau of at least 0, not {self.beta}, {self.tau}")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        logp_BNV = jax.nn.log_softmax(in_place_of_guesses(proposal, logits_BMV))
        logp_BN = at_token(logp_BNV, proposal.tokens_BN)
        index_11V = jnp.arange(logp_BNV.shape[-1])[None, None]
        equal_BNV = (logp_BNV == logp_BN[..., None]) & (index_11V < proposal.tokens_BN[..., None])
        above_BN = jnp.sum((logp_BNV > logp_BN[..., None]) | equal_BNV, axis=-1)  # of equals the first is the likelier
        near_BN = jnp.max(logp_BNV, axis=-1) - logp_BN <= self.tau
        return keep_longest(key, proposal, logits_BMV, sampling, (above_BN < self.beta) & near_BN, logp_BN)


@dataclass(frozen=True)
class Rollback:
    """Lossy: accepts a guess x while -log p(x) is at most `limit`, in nats; p at temperature 1 without filters.

    BiLD's rollback (arXiv 2302.07863; 5.0 is their default). The next token is drawn at the sampling's settings; theirs
    is the target's likeliest, as here when greedy, for they decode greedily alone. A guess that is the target's
    likeliest token stays however improbable it is: nothing would change. Their code then looks at no later guess
    either, and keeps them all. In a tree the longest path stays, of several the likeliest under the target (ours).
    """

    limit: float = 5.0
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if math.isnan(self.limit) or self.limit < 0:
            raise ValueError(f"the limit of -log p must be at least 0, not {self.limit}")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        logp_BNV = jax.nn.log_softmax(in_place_of_guesses(proposal, logits_BMV))
        logp_BN = at_token(logp_BNV, proposal.tokens_BN)
        passes_BN = (-logp_BN <= self.limit) | (proposal.tokens_BN == most_likely(logp_BNV))
        return keep_longest(key, proposal, logits_BMV, sampling, passes_BN, logp_BN)
