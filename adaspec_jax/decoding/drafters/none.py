"""No guesses: the engine decodes plainly, one token per target call."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Proposal


@pytree()
class NoDraft(Stateless):
    """Plain decoding by the same loop: baseline, equality test and speed ratio come from one place."""

    num_nodes = depth = 0

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, tuple]:
        return Proposal(jnp.zeros((context.lengths_B.shape[0], 0), jnp.int32)), state
