"""How long a drafter goes on guessing in a round: rules that decide before each guess is drawn."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context


class Stop(Protocol):
    """Says per row whether the next guess is made. A pytree: weights and thresholds are leaves.

    It decides before the guess is drawn, so that which guesses there are does not depend on what they turn out to be:
    else a lossless rule would be biased (see `Proposal`). These two are all that it must have; see `WholeStop`.
    """

    def begin(self, state: Any, context: Context, /) -> tuple[Array, Any]:
        """(limit_B, state): at most so many guesses in this round, from what the last one taught."""

    def go_on(self, state: Any, n: Array, probs_BV: Array, hidden_BD: Array, /) -> tuple[Array, Any]:
        """(bool_B, state): whether guess n + 1 is made, n = 0, 1, ...; the draft's law there and its last hidden state.

        The law is at the sampling's temperature with its filters, at temperature 1 when greedy.
        """


class WholeStop(Stop, Protocol):
    """A stop with all that one may have; `init` may be left out where nothing is remembered, `ended` where nothing is
    known about the next guess before its law, and `rests` where every round has guesses.
    """

    @property
    def rests(self) -> bool:
        """Whether there are rounds in which no row may guess, which are to cost a plain step; default: no."""

    def init(self, prompt: Context, /) -> Any:
        """The state before the first round, the batch first in every array; default ()."""

    def ended(self, state: Any, /) -> Array:
        """bool_B: rows that will not go on whatever the next law is; where that is all, the draft is not asked."""


@pytree("limit")
class Confident:
    """Guesses while the draft gives its likeliest token at least `threshold`, and at most `limit` times a round.

    transformers' `assistant_confidence_threshold` [note], but that decides after a guess, and keeps the weak one.
    """

    threshold: float = 0.4
    limit: int = 1_000_000

    def begin(self, state: Any, context: Context) -> tuple[Array, Any]:
        return jnp.full(context.lengths_B.shape, self.limit, jnp.int32), state

    def go_on(self, state: Any, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        return jnp.max(probs_BV, axis=-1) >= self.threshold, state


@pytree("limit")
class UntilWeak:
    """Guesses until the draft gives the likeliest token in a guess's place less than `threshold`; that guess stays.

    Kangaroo's second early exit (arXiv 2404.18911; 0.6 and 6 in its code's README). The law in the weak guess's place
    ends the round, whatever is drawn from it, and after that guess: so the rule is exact. Their code asks for the
    probability of the token that it guesses, the likeliest.
    """

    threshold: float = 0.6
    limit: int = 6

    def init(self, prompt: Context) -> Array:
        return jnp.zeros(prompt.lengths_B.shape, bool)

    def begin(self, weak_B: Array, context: Context) -> tuple[Array, Any]:
        return jnp.full(weak_B.shape, self.limit, jnp.int32), jnp.zeros_like(weak_B)

    def go_on(self, weak_B: Array, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        return ~weak_B, weak_B | (jnp.max(probs_BV, axis=-1) < self.threshold)

    def ended(self, weak_B: Array) -> Array:
        return weak_B


class _Following(NamedTuple):
    threshold_B: Array
    matched_B: Array  # the share of guesses accepted, smoothed over rounds
    drafted_B: Array  # guesses of the last round; 0 before there was one
    weak_B: Array  # whether the guess before was a weak one


@pytree("limit")
class ConfidentEnough:
    """Guesses until one is weak, below a threshold that follows what was accepted; the weak guess itself stays.

    Draft & Verify's draft exit (arXiv 2309.08168, constants as in their code). After every round the share of accepted
    guesses is smoothed, m <- m / 2 + share / 2 from m = 0; a threshold t' is `step` above t where m is below `aim`,
    else `step` below it, or t itself where the round made all `limit` guesses; then t <- 0.9 t + 0.1 t'. A guess is
    weak where the draft gives its likeliest token less than t; they ask for the probability of the token drawn, which
    is the same when greedy.
    """

    start: float = 0.8  # theirs for greedy decoding; 0.5 for sampling
    limit: int = 8
    aim: float = 0.9
    step: float = 0.01
    inertia: float = 0.9

    def init(self, prompt: Context) -> _Following:
        zeros_B = jnp.zeros(prompt.lengths_B.shape, jnp.float32)
        return _Following(zeros_B + self.start, zeros_B, zeros_B, zeros_B > 0)

    def begin(self, state: _Following, context: Context) -> tuple[Array, Any]:
        drafted_B, threshold_B = state.drafted_B, state.threshold_B
        matched_B = 0.5 * state.matched_B + 0.5 * context.accepted_B / jnp.maximum(drafted_B, 1)
        lower_B = jnp.where(drafted_B == self.limit, threshold_B, threshold_B - self.step)
        aimed_B = jnp.where(matched_B < self.aim, threshold_B + self.step, lower_B)
        moved_B = self.inertia * threshold_B + (1 - self.inertia) * aimed_B
        began_B = (drafted_B > 0) & (context.judged_B > 0)  # where nothing was judged nothing is known
        state = _Following(
            jnp.where(began_B, moved_B, threshold_B),
            jnp.where(began_B, matched_B, state.matched_B),
            jnp.zeros_like(drafted_B),
            jnp.zeros_like(state.weak_B),
        )
        return jnp.full(drafted_B.shape, self.limit, jnp.int32), state

    def go_on(self, state: _Following, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        goes_B = ~state.weak_B & (n < self.limit)
        weak_B = state.weak_B | (jnp.max(probs_BV, axis=-1) < state.threshold_B)
        return goes_B, state._replace(drafted_B=state.drafted_B + goes_B, weak_B=weak_B)

    def ended(self, state: _Following) -> Array:
        return state.weak_B


@pytree()
class Likeliest:
    """What the draft gives its likeliest token, in the place of a trained estimate that the next guess stays [ours]."""

    looks_back = False

    def __call__(self, probs_BV: Array, hidden_BD: Array) -> Array:
        return jnp.max(probs_BV, axis=-1)


@pytree("limit")
class Survival:
    """Guesses while it is likely that all of the round stay: until 1 - prod a_i > `threshold`.

    SpecDec++ (arXiv 2405.19715; at least 2 and at most 20 guesses and 0.3 as in its code's README, whose sample script
    has 0.7). `head` is any callable pytree that says a_B of (probs_BV, hidden_BD), as `Stop.go_on` is given them.
    Theirs is trained, and reads the hidden state after a guess to say whether that guess stays: such a one says
    `looks_back`, so that what it makes of the last committed token does not count. `Likeliest` is about the next guess.
    """

    head: Any = Likeliest()
    threshold: float = 0.3
    least: int = 2
    limit: int = 20

    def init(self, prompt: Context) -> Array:
        return jnp.ones(prompt.lengths_B.shape, jnp.float32)

    def begin(self, survival_B: Array, context: Context) -> tuple[Array, Any]:
        return jnp.full(survival_B.shape, self.limit, jnp.int32), jnp.ones_like(survival_B)

    def go_on(self, survival_B: Array, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        stays_B = self.head(probs_BV, hidden_BD)
        if getattr(self.head, "looks_back", False):
            stays_B = jnp.where(n > 0, stays_B, 1.0)
        survival_B = survival_B * stays_B
        return (n < self.least) | (1 - survival_B <= self.threshold), survival_B


class _Fallen(NamedTuple):
    threshold_B: Array
    depth_B: Array  # of the last tree; 0 before there was one
    score_B: Array  # of its likeliest path of that depth


@pytree()
class Fallback:
    """Drafting ends where a path is less likely than a threshold that follows what was accepted: for trees that grow.

    EdgeLLM (IEEE TMC 2025; LLMCad, arXiv 2309.04255) falls back to verification as soon as the draft has probably
    erred. The rule is from notes on the papers, not checked: drafting ends where T_c, the product of the likeliest
    probabilities along the path, is below alpha, 0.01 at first. After a round in which n of the N guesses were right
    alpha is halved if all were, else divided by T_c^((N - n) / N). Ours: the bounds of alpha, and that in a tree N is
    its depth, T_c the likeliest path of that depth, and n the accepted guesses of whatever path, also of one that ends
    before; and that a round that judged nothing moves nothing.
    """

    start: float = 0.01
    least: float = 1e-4
    most: float = 0.9

    def init(self, prompt: Context) -> _Fallen:
        zeros_B = jnp.zeros(prompt.lengths_B.shape, jnp.float32)
        return _Fallen(zeros_B + self.start, zeros_B.astype(jnp.int32), zeros_B)

    def begin(self, state: _Fallen, context: Context) -> Array:
        """threshold_B of this round, from what the last one taught."""
        wrong_B = jnp.maximum(state.depth_B - context.accepted_B, 0) / jnp.maximum(state.depth_B, 1)
        raised_B = state.threshold_B * jnp.exp(-state.score_B * wrong_B)
        moved_B = jnp.clip(jnp.where(wrong_B > 0, raised_B, state.threshold_B / 2), self.least, self.most)
        return jnp.where((state.depth_B > 0) & (context.judged_B > 0), moved_B, state.threshold_B)

    def end(self, threshold_B: Array, depth_B: Array, score_B: Array) -> _Fallen:
        """The state after a tree, of whose longest paths the likeliest has this depth and log-probability."""
        return _Fallen(threshold_B, depth_B, score_B)
