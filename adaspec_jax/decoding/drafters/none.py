"""No guesses: the engine decodes plainly, one token per target call."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal


@pytree()
class NoDraft:
    """Plain decoding by the same loop: baseline, equality test and speed ratio come from one place."""

    num_nodes = depth = 0
    asks = Asks(likeliest=0)

    def init(self, prompt: Context, slots: int) -> tuple:
        return ()

    def extend(self, state: tuple, prompt: Context, kept_B: Array, width: int) -> tuple:
        return ()

    def propose(self, key, state, context: Context) -> tuple[Proposal, tuple]:
        return Proposal(jnp.zeros((context.lengths_B.shape[0], 0), jnp.int32)), state
