"""Lossless: a tree is judged from its leaves to its root, every path as one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.walk import along_tree, at_token, follow, positive, row, shape_of
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class TraversalVerification:
    """Lossless: block verification in trees (traversal verification, Weng et al. 2025, arXiv 2505.12398).

    Every place has a ratio r and a law p: the root 1 and the target's law, a node r = min(1, r p(x) / q(x)) of its
    parent's r and p, and the target's law after it. Nodes are tested from the leaves on, all below a node before it,
    siblings in their order: the first that passes, with probability r, stays with the path to it, and the next token
    follows its p. A node that has not passed, nor any below it, leaves its parent

      s = sum (r p - q)+,   p = norm((r p - q)+),   r = s / (s + 1 - r).

    So at or below a place with r and p something stays with probability r, and is followed by p: a child takes
    min(q, r p) of r p, and what is left, (r p - q)+, is the new r times the new p in the share s + 1 - r of cases where
    nothing of the child stays. Siblings state the laws that they were drawn from given those before them, as for
    `rejection_sample`; guesses without a law are point masses, of which it keeps as many as that. A chain gives
    `block_verification`.
    """

    lossless: ClassVar[bool] = True
    opinion: ClassVar[bool] = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if sampling.greedy:
            return follow(proposal, most_likely(logits_BMV))
        _, parents_BN, valid_BN = shape_of(proposal)
        accept_key, next_key = jax.random.split(key)
        ratio_BM, law_BMV = _when_tested(proposal, parents_BN, valid_BN, sampling.probs(logits_BMV))
        passes_BN = jax.random.uniform(accept_key, valid_BN.shape) < ratio_BM[:, 1:]
        stays_BN = _at_or_below(parents_BN, valid_BN, passes_BN).astype(jnp.float32)
        # Of the children of a node that does not pass first, the first at or below which one does.
        walked, _ = along_tree(
            parents_BN,
            valid_BN,
            0 * stays_BN,
            lambda stays: stays,
            lambda stand_B: stays_BN,
            row,
            lambda left, node: left,
        )
        return Verdict(walked.accepted_BN, walked.judged_BN, sampling.draw(next_key, row(law_BMV, walked.stand_B + 1)))


def _when_tested(proposal: Proposal, parents_BN: Array, valid_BN: Array, law_BMV: Array) -> tuple[Array, Array]:
    """(r_BM, p_BMV) of the root and every node where nothing below it stays: when it is tested."""
    batch, nodes = valid_BN.shape

    def refuse(node: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio_BM, law_BMV = at
        valid_B, above_B = valid_BN[:, node], parents_BN[:, node] + 1
        ratio_B, law_BV, token_B = row(ratio_BM, above_B), row(law_BMV, above_B), proposal.tokens_BN[:, node]
        if proposal.probs_BNV is None:
            q_BV = jax.nn.one_hot(token_B, law_BV.shape[1], dtype=jnp.float32)
        else:
            q_BV = proposal.probs_BNV[:, node]
        q_B = at_token(q_BV, token_B)
        own_B = jnp.minimum(1.0, ratio_B * at_token(law_BV, token_B) / jnp.where(q_B > 0, q_B, 1.0))
        less_BV = ratio_B[:, None] * law_BV - q_BV
        left_B = jnp.sum(jnp.maximum(less_BV, 0.0), axis=1)
        odds_B = left_B + (1 - ratio_B)
        left_BV = positive(less_BV, otherwise=law_BV)
        left_BV /= jnp.sum(left_BV, axis=1, keepdims=True)
        rows_B = jnp.arange(batch)
        ratio_BM = ratio_BM.at[:, node + 1].set(own_B)
        # Where p and q agree up to rounding, nothing is refused at the root.
        after_B = jnp.where(odds_B > 0, left_B / jnp.where(odds_B > 0, odds_B, 1.0), ratio_B)
        ratio_BM = ratio_BM.at[rows_B, above_B].set(jnp.where(valid_B, after_B, ratio_B))
        return ratio_BM, law_BMV.at[rows_B, above_B].set(jnp.where(valid_B[:, None], left_BV, law_BV))

    return jax.lax.fori_loop(0, nodes, refuse, (jnp.ones((batch, nodes + 1), jnp.float32), law_BMV))


def _at_or_below(parents_BN: Array, valid_BN: Array, passes_BN: Array) -> Array:
    """bool_BN: valid nodes that pass, or have one below them that does."""
    batch, nodes = valid_BN.shape

    def rise(step: Array, stays_BM: Array) -> Array:
        node = nodes - 1 - step
        stays_B = valid_BN[:, node] & (passes_BN[:, node] | stays_BM[:, node + 1])
        stays_BM = stays_BM.at[:, node + 1].set(stays_B)
        return stays_BM.at[jnp.arange(batch), parents_BN[:, node] + 1].max(stays_B)

    return jax.lax.fori_loop(0, nodes, rise, jnp.zeros((batch, nodes + 1), bool))[:, 1:]


traversal_verification = TraversalVerification()
