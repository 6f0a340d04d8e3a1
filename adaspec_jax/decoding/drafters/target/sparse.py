"""Self-speculation over few keys: the target drafts for itself, seeing the beginning and the end of the text alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


@pytree()
class _View:
    """A cache of which `gone_B` tokens per row are left out, counted as if they were there."""

    cache: Any
    gone_B: Array

    @property
    def lengths_B(self) -> Array:
        return self.cache.lengths_B + self.gone_B

    def roll_back(self, lengths_B: Array) -> _View:
        return dataclasses.replace(self, cache=self.cache.roll_back(lengths_B - self.gone_B))


@pytree()
class _Seeing:
    """The model over a `_View`: tokens keep the positions that they have in the text."""

    model: Model

    def features(self, tokens_BT, view: _View):
        positions_BT = view.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        hidden_BTD, cache = self.model.features(tokens_BT, view.cache, positions_BT=positions_BT)
        return hidden_BTD, dataclasses.replace(view, cache=cache)

    def unembed(self, hidden_BTD):
        return self.model.unembed(hidden_BTD)

    def __call__(self, tokens_BT, view):
        hidden_BTD, view = self.features(tokens_BT, view)
        return self.unembed(hidden_BTD), view


@pytree("length", "budget", "sink")
class SparseDrafter:
    """`length` guesses in a row by the whole target, over `budget` of the cached tokens: the first `sink` and the last.

    Sadhukhan et al. 2025, MagicDec (arXiv 2408.11049) with the cache of StreamingLLM. The cost of a guess does not grow
    with the text, so that it pays for long ones. The keys are taken anew from the target's own cache in every round,
    where theirs are kept in a second cache beside it; they keep their positions in the text. What their other variant
    selects by attention scores (SnapKV) is not here.
    """

    model: Model
    length: int = 3
    budget: int = 256
    sink: int = 16

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        if not 0 <= self.sink < self.budget or self.length < 1:
            numbers = f"{self.sink} of {self.budget} with length {self.length}"
            raise ValueError(f"the sink must be smaller than the budget, and length at least 1: not {numbers}")

    @property
    def num_nodes(self) -> int:
        return self.length

    def init(self, prompt: Context, slots: int) -> tuple:
        return ()

    def propose(self, key, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        chain = ChainDrafter(_Seeing(self.model), self.length)
        view = self._few(context.target_cache, context.lengths_B - 1)
        proposal, _ = chain.propose(key, view, dataclasses.replace(context, behind=1))
        return proposal, state

    def _few(self, cache, held_B: Array) -> _View:
        """The first and the last of `held_B` tokens, and room for a round."""
        gone_B = jnp.maximum(held_B - self.budget, 0)
        kept_1X = jnp.arange(self.budget + self.length + 1)[None]
        slots_BX = kept_1X + jnp.where(kept_1X < self.sink, 0, gone_B[:, None])
        few = cache.select(slots_BX[:, None])
        return _View(few.roll_back(held_B - gone_B), gone_B)
