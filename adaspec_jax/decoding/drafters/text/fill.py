"""Predefined fill: a block of filler, made into the target's text by the target's own passes (Jacobi decoding)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal


class _Block(NamedTuple):
    read_B: Array  # guesses that the last pass read: after each of them it said what should follow
    left_B: Array  # positions of the row's block that are not decided


@pytree("length", "fill", "slides")
class Jacobi(InARow):
    """`length` guesses in a row: what the last pass said at their places, and `fill` where it said nothing.

    Santilli et al. 2023 (arXiv 2305.10427): all positions of a block are set at once to the target's likeliest token
    after the block as it was, until nothing changes. One such step is a verification of the last iterate, whose stable
    beginning is committed (their code moves its cache by one position a step: this never takes more steps).

    `slides`: the block is whole at every step, and moves on with the text (their Jacobi decoding, seen through a window
    of `length` positions). Without it, a block is finished before the next begins (their Gauss-Seidel-Jacobi).

    The guesses are the target's likeliest tokens at any temperature; sampled text keeps its law by the rule for point
    masses, which the paper does not go into.
    """

    length: int = 8
    fill: int = 0
    slides: bool = True

    asks = Asks(likeliest=1)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"a block has at least one position, not {self.length}")

    def init(self, prompt: Context, slots: int) -> _Block:
        nothing_B = jnp.zeros_like(prompt.lengths_B)
        return _Block(nothing_B, nothing_B + self.length)

    def propose(self, key, state: _Block, context: Context) -> tuple[Proposal, _Block]:
        # The first change is committed by the engine itself; what the pass said after it is the next iterate.
        begun_B = state.read_B > 0
        decided_B = jnp.where(begun_B, context.accepted_B + 1, 0)
        at_BN = decided_B[:, None] + jnp.arange(self.length)[None]
        said_BN = jnp.take_along_axis(context.likeliest_BMK[..., 0], jnp.minimum(at_BN, self.length), axis=1)
        left_B = state.left_B - decided_B
        known_BN = (at_BN <= state.read_B[:, None]) & begun_B[:, None]
        if self.slides:
            left_B = jnp.full_like(left_B, self.length)
        else:
            known_BN &= (left_B > 0)[:, None]  # the pass said something after the end of its block: the bonus token
            left_B = jnp.where(left_B > 0, left_B, self.length - (-left_B) % self.length)
        tokens_BN = jnp.where(known_BN, said_BN, self.fill)
        valid_BN = None if self.slides else jnp.arange(self.length)[None] < left_B[:, None]
        return Proposal(tokens_BN, valid_BN=valid_BN), _Block(left_B, left_B)
