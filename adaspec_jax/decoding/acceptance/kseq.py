"""Lossless: several guesses drawn independently for one place are all held against the same share of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.walk import along_tree, at_token, follow, row, shape_of
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict

_HALVINGS = 30  # of the interval in which g lies; any g above the root is exact, so these cost acceptance alone


@dataclass(frozen=True)
class KSequential:
    """Lossless: K-SEQ of SpecTr (arXiv 2310.15141), at every place of a tree whose siblings are independent draws.

    Of k siblings drawn from q the first with U < p(x) / (g q(x)) stays, where beta(g) = sum min(q, p / g) and g in
    [1, k] solves 1 - (1 - beta)^k = g beta. After k refusals the next token follows
    norm(p - min(q, p / g) (1 - (1 - beta)^k) / beta). One sibling: `rejection_sample`.

    Siblings that state another law than the first one (drawn without replacement) are not judged, so that the output's
    law is the target's whatever drew them.

    Raises:
      ValueError: guesses that state no law, when sampling.
    """

    lossless: ClassVar[bool] = True
    opinion: ClassVar[bool] = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if sampling.greedy:
            return follow(proposal, most_likely(logits_BMV))
        tokens_BN, q_BNV = proposal.tokens_BN, proposal.probs_BNV
        if q_BNV is None:
            raise ValueError("K-SEQ needs the law that guesses were drawn from: this drafter states none")
        _, parents_BN, valid_BN = shape_of(proposal)
        valid_BN &= _like_the_first(parents_BN, valid_BN, q_BNV)
        accept_key, next_key = jax.random.split(key)
        uniform_BN = jax.random.uniform(accept_key, tokens_BN.shape) * at_token(q_BNV, tokens_BN)

        def at(stand_B: Array) -> tuple[Array, Array, Array, Array]:
            """(p, q, k, g) where a row stands; q is anyone's where k is 0."""
            here_BN = valid_BN & (parents_BN == stand_B[:, None])
            p_BV = sampling.probs(row(logits_BMV, stand_B + 1))
            q_BV, k_B = row(q_BNV, jnp.argmax(here_BN, axis=1)), jnp.sum(here_BN, axis=1)
            return p_BV, q_BV, k_B, _divisor(p_BV, q_BV, k_B)

        def after(stand_B: Array) -> Array:
            p_BV, _, _, g_B = at(stand_B)
            return jnp.take_along_axis(p_BV, tokens_BN, axis=1) / g_B[:, None]

        walked, _ = along_tree(
            parents_BN, valid_BN, uniform_BN, lambda p: p, after, row, lambda share_BN, node_B: share_BN
        )
        p_BV, q_BV, k_B, g_B = at(walked.stand_B)
        common_BV = jnp.minimum(q_BV, p_BV / g_B[:, None])
        beta_B1 = jnp.sum(common_BV, axis=1, keepdims=True)
        taken_B1 = 1 - (1 - jnp.minimum(beta_B1, 1.0)) ** k_B[:, None]
        left_BV = jnp.maximum(p_BV - common_BV * taken_B1 / jnp.where(beta_B1 > 0, beta_B1, 1.0), 0.0)
        left_BV = jnp.where(jnp.any(left_BV > 0, axis=1, keepdims=True), left_BV, p_BV)
        return Verdict(walked.accepted_BN, walked.judged_BN, sampling.draw(next_key, left_BV))


def _like_the_first(parents_BN: Array, valid_BN: Array, q_BNV: Array) -> Array:
    """Whether a node states the law that its first valid sibling does."""
    siblings_BNN = (parents_BN[:, :, None] == parents_BN[:, None, :]) & valid_BN[:, None, :]
    first_BN = jnp.argmax(siblings_BNN, axis=2)
    return jnp.all(jnp.take_along_axis(q_BNV, first_BN[..., None], axis=1) == q_BNV, axis=-1)


def _divisor(p_BV: Array, q_BV: Array, k_B: Array) -> Array:
    """g per row, from above: with it no token is taken more often than the target would."""

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B, high_B = ends
        middle_B = (low_B + high_B) / 2
        beta_B = jnp.sum(jnp.minimum(q_BV, p_BV / middle_B[:, None]), axis=1)
        above_B = 1 - (1 - jnp.minimum(beta_B, 1.0)) ** k_B <= middle_B * beta_B
        return jnp.where(above_B, low_B, middle_B), jnp.where(above_B, middle_B, high_B)

    ones_B = jnp.ones(k_B.shape, jnp.float32)
    return jax.lax.fori_loop(0, _HALVINGS, halve, (ones_B, jnp.maximum(k_B, 1).astype(jnp.float32)))[1]


k_sequential = KSequential()
