"""The walk from the root along accepted guesses, which every rule of one token at a time shares."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


def walk(key, proposal: Proposal, logits_BMV, sampling: Sampling, raised: Callable[[Array], Array]) -> Verdict:
    """The rule above, with the target's probability of a guess replaced by `raised` of it where it is tested."""
    batch, nodes = proposal.tokens_BN.shape
    parents_BN = proposal.parents_BN
    if parents_BN is None:
        parents_BN = jnp.arange(-1, nodes - 1)
    parents_BN = jnp.broadcast_to(parents_BN, (batch, nodes))
    valid_BN = jnp.ones((batch, nodes), bool) if proposal.valid_BN is None else proposal.valid_BN
    if sampling.greedy:
        return _follow(proposal.tokens_BN, parents_BN, valid_BN, most_likely(logits_BMV))
    accept_key, next_key = jax.random.split(key)
    target_BMV = sampling.probs(logits_BMV)
    uniform_BN = jax.random.uniform(accept_key, (batch, nodes))

    def judge(carry, node):
        stand_B, residual_BV = carry
        index, token_B, parent_B, valid_B, uniform_B, after_BV, probs_BV = node
        judged_B = valid_B & (parent_B == stand_B)
        residual_at_B = jnp.take_along_axis(residual_BV, token_B[:, None], axis=1)[:, 0]
        if probs_BV is None:
            drafted_at_B, guess_BV = 1.0, jax.nn.one_hot(token_B, residual_BV.shape[1], dtype=jnp.float32)
        else:
            drafted_at_B, guess_BV = jnp.take_along_axis(probs_BV, token_B[:, None], axis=1)[:, 0], probs_BV
        accepted_B = judged_B & (uniform_B * drafted_at_B < raised(residual_at_B))
        left_BV = jnp.maximum(residual_BV - guess_BV, 0.0)
        mass_B1 = jnp.sum(left_BV, axis=1, keepdims=True)
        # Where p and q agree up to rounding nothing is left; a refusal then has probability zero up to rounding too.
        left_BV = jnp.where(mass_B1 > 0, left_BV / jnp.where(mass_B1 > 0, mass_B1, 1.0), residual_BV)
        refused_B = judged_B & ~accepted_B
        residual_BV = jnp.where(refused_B[:, None], left_BV, residual_BV)
        residual_BV = jnp.where(accepted_B[:, None], after_BV, residual_BV)
        return (jnp.where(accepted_B, index, stand_B), residual_BV), (accepted_B, judged_B)

    def by_node(array):
        return None if array is None else jnp.moveaxis(array, 1, 0)

    xs = (
        jnp.arange(nodes),
        *(by_node(a) for a in (proposal.tokens_BN, parents_BN, valid_BN, uniform_BN)),
        by_node(target_BMV[:, 1:]),
        by_node(proposal.probs_BNV),
    )
    start = (jnp.full((batch,), -1, jnp.int32), target_BMV[:, 0])
    (_, residual_BV), (accepted_NB, judged_NB) = jax.lax.scan(judge, start, xs)
    return Verdict(accepted_NB.T, judged_NB.T, sampling.draw(next_key, residual_BV))


def _follow(tokens_BN: Array, parents_BN: Array, valid_BN: Array, choices_BM: Array) -> Verdict:
    """The walk under one-hot laws: a node is accepted where it is the target's choice, which no refusal changes."""

    def judge(stand_B, node):
        index, token_B, parent_B, valid_B = node
        judged_B = valid_B & (parent_B == stand_B)
        accepted_B = judged_B & (token_B == _at(choices_BM, stand_B + 1))
        return jnp.where(accepted_B, index, stand_B), (accepted_B, judged_B)

    batch, nodes = tokens_BN.shape
    start_B = jnp.full((batch,), -1, jnp.int32)
    stand_B, (accepted_NB, judged_NB) = jax.lax.scan(
        judge, start_B, (jnp.arange(nodes, dtype=jnp.int32), tokens_BN.T, parents_BN.T, valid_BN.T)
    )
    return Verdict(accepted_NB.T, judged_NB.T, _at(choices_BM, stand_B + 1))


def _at(values_BM: Array, index_B: Array) -> Array:
    return jnp.take_along_axis(values_BM, index_B[:, None], axis=1)[:, 0]
