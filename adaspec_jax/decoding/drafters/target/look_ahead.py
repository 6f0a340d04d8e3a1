"""The target guesses for itself at look-ahead slots that stand after the text: PaSS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.shapes import UpToItsGuesses
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Proposal


class Ahead(Protocol):
    """A target with look-ahead slots; `models.heads` has such values."""

    guesses: int  # of slots

    def ahead(self, last_B1: Array, cache: Any, count: int) -> tuple[Array, Any]:
        """([B, 1 + count, V], the target's cache) at the last token and at so many slots after it."""


@pytree("length")
class LookAheadDrafter(UpToItsGuesses, Stateless):
    """The target's own next token, and `length` guesses after it, or as many as there are slots, from one pass.

    Monea et al. 2023, PaSS (arXiv 2311.13581). The next token is drawn from the target's law, and so it stays whatever
    is guessed: it is no guess, and is not counted as one. No guess knows of those before it. A round is two passes of
    the target, of which the second reads the last token again [ours]: the slots' places in the cache are written over.

    Raises:
      ValueError: a length below 1.
    """

    head: Ahead
    length: int = 4

    given = 1
    writes_target_cache = True

    @property
    def num_nodes(self) -> int:
        return 1 + self.length

    @property
    def depth(self) -> int:
        return 1 + self.length

    def propose(self, key: Array, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        last_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        cache = context.target_cache.roll_back(context.lengths_B - 1)
        logits_BNV, cache = self.head.ahead(last_B1, cache, self.length)
        present_BV = context.present(logits_BNV.shape[-1])
        logits_BNV = context.sampling.processed(logits_BNV, None if present_BV is None else present_BV[:, None])
        return replace(drawn_apart(key, context, logits_BNV), target_cache=cache), state
