"""Self-speculation over few keys: the target drafts for itself, seeing the end of the text and a part of the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.drafters.shapes import InARow
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
class SparseDrafter(InARow):
    """`length` guesses in a row by the whole target, over `budget` of the cached tokens: the first `sink` and the last.

    Sadhukhan et al. 2025, MagicDec (arXiv 2408.11049) with the cache of StreamingLLM. The cost of a guess does not grow
    with the text, so that it pays for long ones. The keys are taken anew from the target's own cache in every round,
    where theirs are kept in a second cache beside it; they keep their positions in the text. `AttendedDrafter` is their
    other variant.
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

    def init(self, prompt: Context, slots: int) -> tuple:
        return ()

    def propose(self, key, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        chain = ChainDrafter(_Seeing(self.model), self.length)
        view = self._few(context.target_cache, context.lengths_B - 1)
        proposal, _ = chain.propose(key, view, dataclasses.replace(context, behind=1))
        return proposal, state

    def _few(self, cache, held_B: Array) -> _View:
        """The first and the last of `held_B` tokens, and room for a round."""
        first_BGX = jnp.broadcast_to(jnp.arange(self.sink)[None, None], (len(held_B), 1, self.sink))
        first_B = jnp.full_like(held_B, self.sink)
        return _few(cache, held_B, [first_BGX] * len(cache.keys), first_B, self.budget, self.length)


def _few(cache, held_B: Array, first: Sequence[Array], first_B: Array, budget: int, length: int) -> _View:
    """`budget` of `held_B` tokens, all where there are no more, and room for a round.

    The first `first_b` of each layer's slots [B, G, X], then the last tokens.
    """
    gone_B = jnp.maximum(held_B - budget, 0)
    kept_1X = jnp.arange(budget + length + 1)[None]
    chosen_BX = kept_1X < jnp.where(gone_B > 0, first_B, 0)[:, None]
    last_BX = kept_1X + gone_B[:, None]

    def slots(first_BGX: Array) -> Array:
        wide_BGX = jnp.pad(first_BGX, ((0, 0), (0, 0), (0, kept_1X.shape[1] - first_BGX.shape[2])))
        return jnp.where(chosen_BX[:, None], wide_BGX, last_BX[:, None])

    few = cache.select([slots(first_BGX) for first_BGX in first])
    return _View(few.roll_back(held_B - gone_B), gone_B)


class _Attended(NamedTuple):
    slots_BLGX: Array  # of the prompt, the most attended first
    count_B: Array  # how many of them there are


@pytree("length", "budget", "recent", "looking", "pool")
class AttendedDrafter(InARow):
    """`length` guesses in a row by the whole target, over `budget` of the cached tokens: the most attended, the last.

    MagicDec (arXiv 2408.11049) with SnapKV's selection: once, after the prompt, every head of keys chooses those of the
    prompt that its last `looking` tokens attend to most, averaged over `pool` neighbours. Ours: the pool, and that the
    last `recent` tokens of the text are kept, which move on with it; the others of an answer are not seen.
    """

    model: Model
    length: int = 3
    budget: int = 256
    recent: int = 64
    looking: int = 32
    pool: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.recent < self.budget or min(self.length, self.looking, self.pool) < 1:
            numbers = f"{self.recent} of {self.budget} with length {self.length}"
            raise ValueError(f"recent must be smaller than the budget, and length at least 1: not {numbers}")

    @property
    def asks(self) -> Asks:
        return Asks(tuple(range(self.model.config.num_layers - 1)), likeliest=0)

    def init(self, prompt: Context, slots: int) -> _Attended:
        position_BT = prompt.lengths_B[:, None] - self.looking + jnp.arange(self.looking)[None]
        at_BT1 = jnp.maximum(position_BT, 0)[:, :, None]
        tokens_BT = jnp.take_along_axis(prompt.tokens_BS, at_BT1[..., 0], axis=1)
        entered = [self.model.run(tokens_BT, positions_BT=at_BT1[..., 0], last=0).hidden]
        entered += [jnp.take_along_axis(hidden_BSD, at_BT1, axis=1) for hidden_BSD in prompt.hidden]
        eligible_B = jnp.maximum(prompt.lengths_B - 1 - self.recent, 0)
        count = min(self.budget - self.recent, prompt.target_cache.slots)
        chosen = []
        for layer, hidden_BTD in enumerate(entered):
            weight_BGS = self.model.attention_to_keys(layer, hidden_BTD, prompt.target_cache, position_BT)
            window = ((1, 1, self.pool), (1, 1, 1), "SAME")
            pooled_BGS = jax.lax.reduce_window(weight_BGS, 0.0, jax.lax.add, *window)
            there_BS = jnp.arange(pooled_BGS.shape[2])[None] < eligible_B[:, None]
            chosen.append(jax.lax.top_k(jnp.where(there_BS[:, None], pooled_BGS, -1.0), count)[1])
        return _Attended(jnp.stack(chosen, axis=1).astype(jnp.int32), jnp.minimum(eligible_B, count))

    def propose(self, key, state: _Attended, context: Context) -> tuple[Proposal, _Attended]:
        first, held_B = jnp.unstack(state.slots_BLGX, axis=1), context.lengths_B - 1
        view = _few(context.target_cache, held_B, first, state.count_B, self.budget, self.length)
        chain = ChainDrafter(_Seeing(self.model), self.length)
        proposal, _ = chain.propose(key, view, dataclasses.replace(context, behind=1))
        return proposal, state
