"""A draft model that guesses several tokens in one pass, at mask tokens that stand after the text: PARD, SpecDec."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.models.reread import read_on, read_prompt
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


@pytree("mask", "length", "block")
class MaskDrafter(InARow):
    """`length` guesses in a row of one pass: after the last committed token, and at `length` - 1 mask tokens after it.

    PARD (arXiv 2504.18583). A guess knows nothing of the guesses before it, so that each one's law is stated as it is.
    The masks' places in the cache are written again by the tokens that come to stand there.

    `block`: of a draft whose masks see each other (SpecDec, 2203.16487), how many guesses it was trained to make at
    once. It then reads `block` - 1 masks whatever the length, and makes no more guesses.

    Raises:
      ValueError: a length below 1.
    """

    model: Model
    mask: int
    length: int = 5
    block: int = 0

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "length", min(self.length, self.block or self.length))

    def init(self, prompt: Context, slots: int) -> Any:
        return read_prompt(self.model, prompt, slots + self._masks - (self.length - 1))

    def extend(self, cache: Any, prompt: Context, kept_B: Array, width: int) -> Any:
        return read_on(self.model, cache, prompt, kept_B, width, window=self._lacks(prompt))

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        logits_BNV, cache = self._logits(cache, context)
        present_BV = context.present(logits_BNV.shape[-1])
        logits_BNV = context.sampling.processed(logits_BNV, None if present_BV is None else present_BV[:, None])
        return drawn_apart(key, context, logits_BNV), cache

    @property
    def _masks(self) -> int:
        return (self.block or self.length) - 1

    def _lacks(self, context: Context) -> int:
        """How many of the last committed tokens the cache may lack: `behind`, and all guesses but one."""
        return context.behind + self.length - 1

    def _logits(self, cache: Any, context: Context) -> tuple[Array, Any]:
        """[B, length, V], and the cache of the committed tokens alone.

        Those that the last round decided are read now: what a chain read as its guesses, this drafter guessed at masks.
        """
        window = self._lacks(context)
        start_B = jnp.maximum(context.lengths_B - window, 0)
        width = window + self._masks
        place_BW = start_B[:, None] + jnp.arange(width)[None]
        text_BW = tokens_from(context.tokens_BS, start_B, width)
        tokens_BW = jnp.where(place_BW < context.lengths_B[:, None], text_BW, self.mask)
        cache, seen = cache.roll_back(start_B), {}
        if self.block:  # its masks see each other, and nobody sees what stands behind them
            until_BW = jnp.where(
                place_BW < context.lengths_B[:, None], place_BW, context.lengths_B[:, None] + self._masks - 1
            )
            seen = {"mask_BTS": jnp.arange(cache.slots)[None, None] <= until_BW[:, :, None]}
        hidden_BWD, cache = self.model.features(tokens_BW, cache, **seen)
        last_B1 = (context.lengths_B - 1 - start_B)[:, None]
        at_BN1 = (last_B1 + jnp.arange(self.length)[None])[..., None]
        logits_BNV = self.model.unembed(jnp.take_along_axis(hidden_BWD, at_BN1, axis=1))
        return logits_BNV, cache.roll_back(context.lengths_B)
