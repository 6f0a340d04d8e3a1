"""Lossless: one sample of the target at every node, and the walk along guesses that equal it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from adaspec_jax.decoding.acceptance.walk import follow
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class MatchSample:
    """Lossless for any guesses in any tree, whatever drew them and whether or not they state a law.

    The target draws one token at the root and at every node, once each, and a guess stays where it is that token: the
    text is the target's own, and guesses only say how much of it one call yields. REST and Medusa's nucleus form draw a
    node again for every path through it and keep the longest match, which is biased. A guess stays with probability
    p[x], never more often than under `rejection_sample`.
    """

    lossless: ClassVar[bool] = True
    opinion: ClassVar[bool] = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        return follow(proposal, sampling.pick(key, logits_BMV)[0])


match_sample = MatchSample()
