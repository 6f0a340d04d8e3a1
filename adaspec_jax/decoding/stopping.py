"""How long a drafter goes on guessing in a round: rules that decide before each guess is drawn."""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context


class Stop(Protocol):
    """Says per row whether the next guess is made. A pytree: weights and thresholds are leaves.

    It decides before the guess is drawn, so that which guesses there are does not depend on what they turn out to be:
    else a lossless rule would be biased (see `Proposal`). `init` may be left out where nothing is remembered.
    """

    def init(self, prompt: Context) -> Any:
        """The state before the first round, the batch first in every array; default ()."""

    def begin(self, state: Any, context: Context) -> tuple[Array, Any]:
        """(limit_B, state): at most so many guesses in this round, from what the last one taught."""

    def go_on(self, state: Any, n: Array, probs_BV: Array, hidden_BD: Array) -> tuple[Array, Any]:
        """(bool_B, state): whether guess n + 1 is made, n = 0, 1, ...; the draft's law there and its last hidden state.

        The law is at the sampling's temperature with its filters, at temperature 1 when greedy.
        """


@pytree("limit")
class Confident:
    """Guesses while the draft gives its likeliest token at least `threshold`, and at most `limit` times a round.

    transformers' `assistant_confidence_threshold` [note], but that decides after a guess, and keeps the weak one.
    """

    threshold: float = 0.4
    limit: int = 1_000_000

    def begin(self, state, context: Context):
        return jnp.full(context.lengths_B.shape, self.limit, jnp.int32), state

    def go_on(self, state, n, probs_BV, hidden_BD):
        return jnp.max(probs_BV, axis=-1) >= self.threshold, state
