"""How many guesses a round makes, by what earlier rounds accepted: controllers that follow the text they decode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context


@pytree()
class FiniteState:
    """`up` guesses more after a round that refused none, `down` fewer after a refusal, between `least` and `limit`.

    The second controller of "drop-in on-the-fly adaptation" (Liu, Park and Shen, ACL 2025; from notes on the paper,
    which do not say how far it moves: 1 and 1 are ours). With up=2 the "heuristic" schedule of transformers (5.23,
    `AssistedCandidateGenerator.update_candidate_strategy`), which has no limit. A round that judged nothing moves
    nothing.
    """

    first: int = 5
    up: int = 1
    down: int = 1
    least: int = 1
    limit: int = 16

    def init(self, prompt: Context) -> Array:
        return jnp.full(prompt.lengths_B.shape, self.first, jnp.int32)

    def begin(self, limit_B: Array, context: Context) -> tuple[Array, Any]:
        moved_B = jnp.where(context.judged_B > context.accepted_B, limit_B - self.down, limit_B + self.up)
        limit_B = jnp.clip(jnp.where(context.judged_B > 0, moved_B, limit_B), self.least, self.limit)
        return limit_B, limit_B

    def go_on(self, limit_B: Array, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        return jnp.ones(limit_B.shape, bool), limit_B


class _Seen(NamedTuple):
    kept_BH: Array  # guesses accepted in each of the last rounds that judged any
    refused_BH: Array  # and whether a refusal ended it
    rounds_B: Array  # rounds that judged any
    rested_B: Array  # rounds without guesses since the last that had some
    lengths_B: Array  # of the text, a round ago


@pytree("window")
class Analytical:
    """As many guesses as promise most tokens for their cost, by the acceptance of the last `window` rounds.

    The first controller of "drop-in on-the-fly adaptation" (Liu, Park and Shen, ACL 2025; from notes on the paper):
    with alpha by maximum likelihood, accepted / (accepted + rounds that a refusal ended), the n that maximises
    (1 + alpha + ... + alpha^n) / cost of a round with n guesses. Ours is the rest. Every row has an alpha of its own;
    the rows of a batch share one n, which maximises the sum of what those that still write expect, because a round
    costs them all alike. `weight` guesses of which the share `prior` stayed are counted as seen before the first. n may
    be 0, a plain step; after `probe` such rounds in a row comes one with the best other n, so that it can come back.

    `costs_M[n]`, n = 0, 1, ..., is what a round with n guesses costs, in any unit, by batch size; of several sizes the
    nearest counts. Other costs, in arrays as long, compile nothing again.
    """

    costs_M: Mapping[int, Array]
    window: int = 16
    probe: int = 16
    prior: float = 0.7
    weight: float = 1.0

    rests = True

    def init(self, prompt: Context) -> _Seen:
        zeros_B = jnp.zeros(prompt.lengths_B.shape, jnp.int32)
        zeros_BH = jnp.zeros((len(zeros_B), self.window), jnp.int32)
        return _Seen(zeros_BH, zeros_BH, zeros_B, zeros_B, zeros_B)

    def begin(self, state: _Seen, context: Context) -> tuple[Array, Any]:
        # Shorter inside another round, where the larger model refused; where nothing moved all count.
        writes_B, state = context.lengths_B != state.lengths_B, self._learnt(state, context)
        writes_B |= ~jnp.any(writes_B)
        costs_M = jnp.asarray(self.costs_M[self._nearest(len(writes_B))], jnp.float32)
        tokens_BM = jnp.cumsum(self.alpha(state)[:, None] ** jnp.arange(len(costs_M))[None], axis=1)
        rate_M = jnp.sum(jnp.where(writes_B[:, None], tokens_BM, 0), axis=0) / costs_M
        best, best_of_some = jnp.argmax(rate_M), 1 + jnp.argmax(rate_M[1:])
        rested = jnp.max(state.rested_B)
        guesses = jnp.where((best == 0) & (rested >= self.probe), best_of_some, best).astype(jnp.int32)
        rested_B = jnp.full_like(state.rested_B, jnp.where(guesses > 0, 0, rested + 1))
        return jnp.full_like(rested_B, guesses), state._replace(rested_B=rested_B)

    def go_on(self, state: _Seen, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        return jnp.ones(state.rounds_B.shape, bool), state

    def alpha(self, state: _Seen) -> Array:
        """[B] the estimate of each row."""
        kept_B, refused_B = jnp.sum(state.kept_BH, axis=1), jnp.sum(state.refused_BH, axis=1)
        return (kept_B + self.weight * self.prior) / (kept_B + refused_B + self.weight)

    def _learnt(self, state: _Seen, context: Context) -> _Seen:
        judged_B = context.judged_B > 0
        place_BH = jnp.arange(self.window)[None] == (state.rounds_B % self.window)[:, None]
        newest_BH = place_BH & judged_B[:, None]
        refused_B = context.judged_B - context.accepted_B
        return state._replace(
            kept_BH=jnp.where(newest_BH, context.accepted_B[:, None], state.kept_BH),
            refused_BH=jnp.where(newest_BH, refused_B[:, None], state.refused_BH),
            rounds_B=state.rounds_B + judged_B,
            lengths_B=context.lengths_B,
        )

    def _nearest(self, batch: int) -> int:
        return min(self.costs_M, key=lambda size: abs(math.log(size / batch)))
