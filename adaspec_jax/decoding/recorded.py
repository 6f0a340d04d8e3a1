"""A target that says again what it once wrote, for drafters whose guesses follow from that text."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree


@pytree("slots")
class _Read:
    """A cache of nothing but how much was read."""

    lengths_B: Array
    slots: int

    def roll_back(self, lengths_B: Array) -> _Read:
        return dataclasses.replace(self, lengths_B=lengths_B)

    def keep_path(self, start_B: Array, rows_BM: Array) -> _Read:
        return self


@pytree("vocab_size")
class RecordedTarget:
    """The `Model` whose choice after a place of row b is the next token of that row's text, whatever was guessed there.

    Right at temperature 0 for every guess that can be accepted: those above it are then the text's own, and so is the
    choice after the last of them. What it says after a refused guess is not what a target would have said, so that a
    drafter which reads that (`asks`, or a target of its own) is not for it; nor is a lossy rule, whose text is another.
    """

    text_BS: Array  # prompt and answer, right-padded
    vocab_size: int

    def init_cache(self, batch_size: int, slots: int) -> _Read:
        return _Read(jnp.zeros((batch_size,), jnp.int32), slots)

    def __call__(
        self,
        tokens_BT: Array,
        cache: _Read | None = None,
        *,
        positions_BT: Array | None = None,
        mask_BTS: Array | None = None,
    ) -> tuple[Array, _Read]:
        batch, columns = tokens_BT.shape
        cache = self.init_cache(batch, columns) if cache is None else cache
        if positions_BT is None:
            positions_BT = cache.lengths_B[:, None] + jnp.arange(columns)[None]
        next_BT = jnp.minimum(positions_BT + 1, self.text_BS.shape[1] - 1)
        said_BT = jnp.take_along_axis(self.text_BS, jnp.broadcast_to(next_BT, (batch, columns)), axis=1)
        return jax.nn.one_hot(said_BT, self.vocab_size), cache.roll_back(cache.lengths_B + columns)
