"""Lossy: the walk along guesses that equal any of several samples of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.walk import along_tree, follow, row, shape_of
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class Tolerance:
    """Lossy when sampling: the target draws `samples` tokens at the root and at every node, and a guess x equal to any
    stays, which has probability 1 - (1 - p[x])^samples.

    Of siblings the first such guess is followed; where there is none, the first of the samples is the next token. One
    sample is `match_sample`, and lossless. Greedy decoding writes the target's own text. The rule is ours, after
    VADUSA's "tolerance" (arXiv 2410.21951), of which only that it accepts more than exact matches is known to us.
    """

    samples: int = 2
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"tolerance needs at least one sample, not {self.samples}")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if sampling.greedy:
            return follow(proposal, most_likely(logits_BMV))
        tokens_BN, (_, parents_BN, valid_BN) = proposal.tokens_BN, shape_of(proposal)
        p_BMV = sampling.probs(logits_BMV)
        drawn_BMK = jnp.stack([sampling.draw(each, p_BMV) for each in jax.random.split(key, self.samples)], axis=-1)

        def equal_at(stand_B: Array) -> Array:
            return jnp.any(row(drawn_BMK, stand_B + 1)[:, None] == tokens_BN[..., None], axis=-1).astype(jnp.float32)

        walked, _ = along_tree(
            parents_BN,
            valid_BN,
            jnp.full(tokens_BN.shape, 0.5),
            lambda equal: equal,
            equal_at,
            row,
            lambda equal_BN, node_B: equal_BN,
        )
        return Verdict(walked.accepted_BN, walked.judged_BN, row(drawn_BMK[..., 0], walked.stand_B + 1))
