"""The walk from the root along accepted guesses, which every rule of one token at a time shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import Proposal, Verdict


class _Walk(NamedTuple):
    """Where each row went. The sums of `accepted_BN` are the depths at which rows stand."""

    stand_B: Array  # the last accepted node, -1: the root
    accepted_BN: Array
    judged_BN: Array


# What is left of the law before any refusal, a node's probability in that, and what is left after its refusal.
_Left = tuple[Callable[[Array], Array], Callable[[Array, Array], Array], Callable[[Array, Array], Array]]


def walk(
    key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling, raised: Callable[[Array], Array]
) -> Verdict:
    """`rejection_sample`, with the target's probability of a guess replaced by `raised` of it where it is tested.

    In a chain the laws at all nodes are formed at once, in a tree those where a row comes to stand. In chains, and with
    point masses in trees, tests read single probabilities, and one residual is formed, where the walk ends.
    """
    if sampling.greedy:
        return follow(proposal, most_likely(logits_BMV))
    (batch, nodes), tokens_BN = proposal.tokens_BN.shape, proposal.tokens_BN
    is_chain, parents_BN, valid_BN = shape_of(proposal)
    accept_key, next_key = jax.random.split(key)
    uniform_BN = jax.random.uniform(accept_key, (batch, nodes))
    if proposal.probs_BNV is not None:
        uniform_BN *= at_token(proposal.probs_BNV, tokens_BN)

    def law_at(stand_B: Array) -> Array:
        return sampling.probs(row(logits_BMV, stand_B + 1)) if laws_BMV is None else row(laws_BMV, stand_B + 1)

    laws_BMV = sampling.probs(logits_BMV) if is_chain else None
    if laws_BMV is not None:
        walked = _along_chain(valid_BN, uniform_BN < raised(at_token(laws_BMV[:, :nodes], tokens_BN)))
    elif proposal.probs_BNV is None:
        walked, _ = along_tree(parents_BN, valid_BN, uniform_BN, raised, *_scalars(tokens_BN, law_at))
    else:
        walked, left_BV = along_tree(
            parents_BN, valid_BN, uniform_BN, raised, *_laws(tokens_BN, proposal.probs_BNV, law_at)
        )
        return Verdict(walked.accepted_BN, walked.judged_BN, sampling.draw(next_key, left_BV))
    refused_BN = walked.judged_BN & ~walked.accepted_BN & (parents_BN == walked.stand_B[:, None])
    left_BV = _left_of(law_at(walked.stand_B), refused_BN, tokens_BN, proposal.probs_BNV)
    return Verdict(walked.accepted_BN, walked.judged_BN, sampling.draw(next_key, left_BV))


def shape_of(proposal: Proposal) -> tuple[bool, Array, Array]:
    """(whether it is known to be a chain, parents_BN, valid_BN)."""
    (batch, nodes), parents = proposal.tokens_BN.shape, proposal.parents_BN
    chain = np.arange(-1, nodes - 1)
    is_chain = parents is None or (isinstance(parents, np.ndarray) and bool(np.all(parents == chain)))
    parents_BN = jnp.broadcast_to(chain if is_chain or parents is None else parents, (batch, nodes))
    return is_chain, parents_BN, jnp.ones((batch, nodes), bool) if proposal.valid_BN is None else proposal.valid_BN


def _along_chain(valid_BN: Array, passes_BN: Array) -> _Walk:
    accepted_BN = jnp.cumprod(valid_BN & passes_BN, axis=1).astype(bool)
    reached_BN = jnp.pad(accepted_BN, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    return _Walk(jnp.sum(accepted_BN, axis=1, dtype=jnp.int32) - 1, accepted_BN, valid_BN & reached_BN)


def along_tree(
    parents_BN: Array,
    valid_BN: Array,
    uniform_BN: Array,
    raised: Callable[[Array], Array],
    after: Callable[[Array], Any],
    at: Callable[[Any, Array], Array],
    without: Callable[[Any, Array], Any],
) -> tuple[_Walk, Any]:
    """The walk and what is left of the law where it ends; each row's next waiting node is judged in one step.

    `after(stand_B)` is what is left before any refusal, `at(left, node_B)` the probability of a node's token in it,
    `without(left, node_B)` what is left after its refusal.
    """
    index_1N = jnp.arange(parents_BN.shape[1], dtype=jnp.int32)[None]

    def waiting(walked: _Walk, last_B: Array) -> Array:
        return valid_BN & (parents_BN == walked.stand_B[:, None]) & (index_1N > last_B[:, None])

    def judge(carry: tuple[_Walk, Array, Any]) -> tuple[_Walk, Array, Any]:
        walked, last_B, left = carry
        waits_BN = waiting(walked, last_B)
        judged_B = jnp.any(waits_BN, axis=1)
        node_B = jnp.argmax(waits_BN, axis=1).astype(jnp.int32)
        accepted_B = judged_B & (row(uniform_BN, node_B) < raised(at(left, node_B)))
        stand_B = jnp.where(accepted_B, node_B, walked.stand_B)
        left = _where(judged_B, without(left, node_B), left)
        left = jax.lax.cond(
            jnp.any(accepted_B), lambda left: _where(accepted_B, after(stand_B), left), lambda left: left, left
        )
        here_BN = index_1N == node_B[:, None]
        walked = _Walk(
            stand_B,
            walked.accepted_BN | (here_BN & accepted_B[:, None]),
            walked.judged_BN | (here_BN & judged_B[:, None]),
        )
        return walked, jnp.where(judged_B, node_B, last_B), left

    root_B, none_BN = jnp.full(parents_BN.shape[:1], -1, jnp.int32), jnp.zeros(parents_BN.shape, bool)
    start = (_Walk(root_B, none_BN, none_BN), root_B, after(root_B))
    walked, _, left = jax.lax.while_loop(lambda carry: jnp.any(waiting(*carry[:2])), judge, start)
    return walked, left


def _scalars(tokens_BN: Array, law_at: Callable[[Array], Array]) -> _Left:
    """For point masses: what is left is known by its probabilities at the guesses alone, [B, N]."""

    def without(left_BN: Array, node_B: Array) -> Array:
        refused_B1 = row(left_BN, node_B)[:, None]
        others_BN = jnp.where(tokens_BN == row(tokens_BN, node_B)[:, None], 0.0, left_BN)
        return jnp.where(refused_B1 < 1, others_BN / jnp.where(refused_B1 < 1, 1 - refused_B1, 1.0), left_BN)

    return lambda stand_B: jnp.take_along_axis(law_at(stand_B), tokens_BN, axis=1), row, without


def _laws(tokens_BN: Array, probs_BNV: Array, law_at: Callable[[Array], Array]) -> _Left:
    """For guesses with laws: what is left is a law, [B, V]."""

    def without(left_BV: Array, node_B: Array) -> Array:
        less_BV = positive(left_BV - row(probs_BNV, node_B), otherwise=left_BV)
        return less_BV / jnp.sum(less_BV, axis=1, keepdims=True)

    return law_at, lambda left_BV, node_B: at_token(left_BV, row(tokens_BN, node_B)), without


def _left_of(law_BV: Array, refused_BN: Array, tokens_BN: Array, probs_BNV: Array | None) -> Array:
    """What is left of a law after refusals at one place, up to a factor; with `probs_BNV` at most one of them."""
    if probs_BNV is None:
        rows_B1, nowhere = jnp.arange(len(law_BV))[:, None], law_BV.shape[1]
        less_BV = law_BV.at[rows_B1, jnp.where(refused_BN, tokens_BN, nowhere)].set(0.0, mode="drop")
        return positive(less_BV, otherwise=law_BV)
    less_BV = law_BV - row(probs_BNV, jnp.argmax(refused_BN, axis=1))
    return jnp.where(jnp.any(refused_BN, axis=1)[:, None], positive(less_BV, otherwise=law_BV), law_BV)


def positive(less_BV: Array, *, otherwise: Array) -> Array:
    """The positive part; where nothing is positive, `otherwise`.

    Where p and q agree up to rounding nothing is left; a refusal then has probability zero up to rounding too.
    """
    return jnp.where(jnp.any(less_BV > 0, axis=1, keepdims=True), jnp.maximum(less_BV, 0.0), otherwise)


def follow(proposal: Proposal, choices_BM: Array) -> Verdict:
    """The walk under one-hot laws: a node is accepted where it is the target's choice, which no refusal changes."""
    tokens_BN, (_, parents_BN, valid_BN) = proposal.tokens_BN, shape_of(proposal)

    def judge(stand_B: Array, node: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        index, token_B, parent_B, valid_B = node
        judged_B = valid_B & (parent_B == stand_B)
        accepted_B = judged_B & (token_B == row(choices_BM, stand_B + 1))
        return jnp.where(accepted_B, index, stand_B), (accepted_B, judged_B)

    batch, nodes = tokens_BN.shape
    start_B = jnp.full((batch,), -1, jnp.int32)
    stand_B, (accepted_NB, judged_NB) = jax.lax.scan(
        judge, start_B, (jnp.arange(nodes, dtype=jnp.int32), tokens_BN.T, parents_BN.T, valid_BN.T)
    )
    return Verdict(accepted_NB.T, judged_NB.T, row(choices_BM, stand_B + 1))


def _where(condition_B: Array, yes: Array, no: Array) -> Array:
    return jnp.where(condition_B[:, None], yes, no)


def at_token(values_V: Array, token: Array) -> Array:
    """The value at one index per row."""
    return jnp.take_along_axis(values_V, token[..., None], axis=-1)[..., 0]


def row(values_BM: Array, index_B: Array) -> Array:
    """The entry of axis 1 at one index per row, whatever axes follow."""
    index = index_B.reshape(-1, *(1,) * (values_BM.ndim - 1))
    return jnp.take_along_axis(values_BM, index, axis=1)[:, 0]
