"""Lossless: a chain's guesses are accepted as one block, not one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.walk import at_token, follow, positive, row, shape_of
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class BlockVerification:
    """Lossless: of a chain's prefixes the longest that passes stays (block verification, Sun et al. 2024).

    With r_0 = 1, r_i = min(1, r_{i-1} p(x_i) / q(x_i)) and s_i = sum (r_i p - q)+ after x_1 .. x_i, the prefix of
    length i passes with probability s_i / (s_i + 1 - r_i), the whole chain with r. The next token follows
    norm((r_i p - q)+) there, or p after the whole chain. Never fewer accepted guesses in expectation than under
    `rejection_sample`; equal for one guess, and when greedy. Guesses without a law are point masses.

    A chain may end early in some rows (`valid_BN`), even because of what was drawn before: there it is whole.

    Raises:
      ValueError: a proposal not known to be a chain before anything is traced.
    """

    lossless: ClassVar[bool] = True
    opinion: ClassVar[bool] = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        is_chain, _, valid_BN = shape_of(proposal)
        if not is_chain:
            raise ValueError("block verification is for chains: this drafter's guesses form a tree")
        if sampling.greedy:
            return follow(proposal, most_likely(logits_BMV))
        valid_BN = jnp.cumprod(valid_BN, axis=1).astype(bool)
        (batch, nodes), (accept_key, next_key) = valid_BN.shape, jax.random.split(key)
        p_BMV, tokens_BN, q_BNV = sampling.probs(logits_BMV), proposal.tokens_BN, proposal.probs_BNV
        if q_BNV is None:
            q_BNV = jax.nn.one_hot(tokens_BN, p_BMV.shape[-1], dtype=jnp.float32)
        ratio_BM = _joint_ratio(at_token(p_BMV[:, :nodes], tokens_BN), at_token(q_BNV, tokens_BN))
        left_BN = jnp.sum(jnp.maximum(ratio_BM[:, :-1, None] * p_BMV[:, :-1] - q_BNV, 0.0), axis=-1)
        odds_BN = left_BN + (1 - ratio_BM[:, :-1])
        passes_BM = jnp.pad(left_BN / jnp.where(odds_BN > 0, odds_BN, 1.0), ((0, 0), (0, 1)))

        place_1M, end_B1 = jnp.arange(nodes + 1)[None], jnp.sum(valid_BN, axis=1, keepdims=True)
        passes_BM = jnp.where(place_1M == end_B1, ratio_BM, passes_BM)
        passed_BN = valid_BN & (jax.random.uniform(accept_key, (batch, nodes)) < passes_BM[:, 1:])
        kept_B = jnp.max(jnp.where(passed_BN, place_1M[:, 1:], 0), axis=1, initial=0)
        p_BV = row(p_BMV, kept_B)
        q_BV = row(jnp.pad(q_BNV, ((0, 0), (0, 1), (0, 0))), kept_B)
        left_BV = positive(row(ratio_BM, kept_B)[:, None] * p_BV - q_BV, otherwise=p_BV)
        left_BV = jnp.where(kept_B[:, None] == end_B1, p_BV, left_BV)
        accepted_BN = place_1M[:, 1:] <= kept_B[:, None]
        judged_BN = valid_BN & (place_1M[:, 1:] <= kept_B[:, None] + 1)
        return Verdict(accepted_BN, judged_BN, sampling.draw(next_key, left_BV))


def _joint_ratio(p_BN: Array, q_BN: Array) -> Array:
    """r_0 .. r_N of the guesses' probabilities under target and draft, [B, N + 1]."""

    def extend(ratio_B: Array, guess: tuple[Array, Array]) -> tuple[Array, Array]:
        p_B, q_B = guess
        ratio_B = jnp.minimum(1.0, ratio_B * p_B / jnp.where(q_B > 0, q_B, 1.0))
        return ratio_B, ratio_B

    ones_B = jnp.ones(p_BN.shape[:1], jnp.float32)
    _, ratio_NB = jax.lax.scan(extend, ones_B, (p_BN.T, q_BN.T))
    return jnp.concatenate([ones_B[:, None], ratio_NB.T], axis=1)


block_verification = BlockVerification()
