"""Lossy: how a middle model looks over guesses that a larger model will judge (CS Drafting)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.longest import in_place_of_guesses, keep_longest
from adaspec_jax.decoding.acceptance.walk import at_token, walk
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class Review:
    """Lossy: accepts the model's likeliest token, and others with p(x) > q(x) / lenience.

    CS Drafting (arXiv 2312.11462) lets the middle models of a cascade review so, and never the target. p and q are the
    laws at temperature 1; a guess without an opinion is a point mass. The next token is the model's likeliest. Their
    code, which has greedy decoding alone, takes q(x) as 1 for all guesses where the last of them are copied ones, so
    that a lenience of 2 lets nothing more pass there; here each guess has its maker's q. In sampled text a guess stays
    with probability min(1, lenience p / q), which is `Lenient(1 / lenience)` (ours).
    """

    lenience: float = 2.0
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.lenience < math.inf:
            raise ValueError(f"lenience is {self.lenience}; it must be at least 1")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if not sampling.greedy:
            return walk(key, proposal, logits_BMV, sampling, lambda p: p * self.lenience)
        tokens_BN, logits_BNV = proposal.tokens_BN, in_place_of_guesses(proposal, logits_BMV)
        logp_BN, logq_BN = at_token(jax.nn.log_softmax(logits_BNV), tokens_BN), jnp.zeros(tokens_BN.shape)
        if proposal.opinion_BNV is not None:
            logq_BN = at_token(jax.nn.log_softmax(proposal.opinion_BNV.astype(jnp.float32)), tokens_BN)
        passes_BN = (tokens_BN == most_likely(logits_BNV)) | (logp_BN > logq_BN - math.log(self.lenience))
        return keep_longest(key, proposal, logits_BMV, sampling, passes_BN, logp_BN)
