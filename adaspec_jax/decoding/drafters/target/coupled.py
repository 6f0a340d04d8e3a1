"""Heads that guess a block of tokens in one pass, and go on block by block from guesses of their own: Falcon's kind.

Entry t of such a head's cache is made of the target's hidden state at position t, the token at t + 1, and what a memory
keeps of the entries before it; a block's last entries guess what follows it. After every verification the entries of
what it decided are made of the target's true hidden states, as those of EAGLE's kind (`features`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.conditional import changed_if
from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.models.growth import Beams, grown_after
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.target.decided import decided, with_features
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.present import with_token
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal


class CoupledHead(Protocol):
    """A head on a target, with what it shares with it; `models.heads` has such values."""

    layers: tuple[float, ...]  # the target's whose hidden states it reads
    block: int

    def read(self, hidden_BPTD: Array, tokens_BPT: Array, cache: Any, *, above_BP: Array, positions_BPT: Array) -> Any:
        """The cache P T entries longer: P paths, each going on from the entry in slot `above_BP` (below 0: none).

        Column t has a hidden state and the token after it; positions are those of the hidden states.
        """

    def guess(self, cache: Any, slots_BN: Array, *, positions_BN: Array, mask_BNS: Array) -> Array:
        """[B, N, D] for `unembed`, which stand for hidden states too, of entries that see what their mask shows."""

    def unembed(self, made: Array) -> Array:
        """Logits [..., V]."""

    def init_cache(self, batch_size: int, slots: int) -> Any: ...


class _OnBlocks:
    """What drafters of one head have in common: its cache, and what it reads between rounds.

    A row whose prompt is one token has no hidden state before its last token: it guesses nothing in its first round.
    """

    head: CoupledHead

    @property
    def asks(self) -> Asks:
        return Asks(layers=self.head.layers, likeliest=0)

    def init(self, prompt: Context, slots: int) -> Any:
        hidden_BTD = jnp.concatenate(prompt.hidden, axis=-1)
        cache = self.head.init_cache(len(prompt.lengths_B), slots + self._beyond)
        start_B = jnp.zeros_like(prompt.lengths_B)
        cache = self._one_path(hidden_BTD, jnp.roll(prompt.tokens_BS, -1, axis=1), cache.roll_back(start_B))
        return cache.roll_back(prompt.lengths_B - 1)

    @property
    def _beyond(self) -> int:
        """Entries that a round makes beyond those that a verification has room for."""
        return self.head.block

    def _one_path(self, hidden_BTD: Array, tokens_BT: Array, cache: Any) -> Any:
        """The cache longer by what follows its last entry."""
        start_B1 = jnp.asarray(cache.lengths_B)[:, None]
        place_BT = start_B1 + jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]
        where = {"above_BP": start_B1 - 1, "positions_BPT": place_BT[:, None]}
        return self.head.read(hidden_BTD[:, None], tokens_BT[:, None], cache, **where)

    def _standing(self, cache: Any, context: Context) -> Any:
        """The cache of what the last round decided, as far as the target has computed it: lengths_B - 1 entries."""
        features_BWF, start_B = decided(context, self.depth)
        tokens_BW = tokens_from(context.tokens_BS, start_B + 1, self.depth + 1)
        return self._one_path(features_BWF, tokens_BW, cache.roll_back(start_B)).roll_back(context.lengths_B - 1)

    def _guessed(self, cache: Any) -> Array:
        """[B, k, D] by the cache's last entries; where there are fewer than k, the first stands for those missing."""
        held_B1 = jnp.asarray(cache.lengths_B)[:, None]
        slots_Bk = jnp.maximum(held_B1 - self.head.block + jnp.arange(self.head.block, dtype=jnp.int32)[None], 0)
        mask_B1S = (jnp.arange(cache.slots, dtype=jnp.int32)[None] < held_B1)[:, None]
        mask_BkS = jnp.broadcast_to(mask_B1S, (*slots_Bk.shape, cache.slots))
        return self.head.guess(cache, slots_Bk, positions_BN=slots_Bk, mask_BNS=mask_BkS)


@pytree("length")
class CoupledChain(InARow, _OnBlocks):
    """`length` guesses in a row, block by block, drawn from the head under the target's sampling settings.

    A guess knows nothing of those before it in its own block, so that each one's law is stated as it is.
    """

    head: CoupledHead
    length: int = 5

    def propose(self, key, cache, context: Context):
        cache, parts = self._standing(cache, context), []
        starts = range(0, self.length, self.head.block)
        present_BV = None
        for start, each in zip(starts, jax.random.split(key, len(starts)), strict=True):
            made_BkD = self._guessed(cache)
            logits_BkV = self.head.unembed(made_BkD)
            if not start:
                present_BV = context.present(logits_BkV.shape[-1])
            penalised = None if present_BV is None else present_BV[:, None]
            logits_BkV = context.sampling.processed(logits_BkV, penalised)
            there = replace(context, lengths_B=context.lengths_B + start)
            parts.append(drawn_apart(each, there, logits_BkV))
            if start + self.head.block < self.length:
                tokens_Bk = parts[-1].tokens_BN
                cache = self._one_path(made_BkD, tokens_Bk, cache)
                for j in range(self.head.block):
                    present_BV = with_token(present_BV, tokens_Bk[:, j])
        whole = jax.tree.map(lambda *each: jnp.concatenate(each, axis=1)[:, : self.length], *parts)
        return with_features(context, whole), cache


class _Block(NamedTuple):
    """Where nodes stand in the blocks that were read: [B, W, ...] of W nodes."""

    made_BWkD: Array  # by the last whole block on the way to the node; the guesses after that are its laws'
    tokens_BWk: Array  # the last k on the way
    last_BW: Array  # the slot of that block's last entry
    sees_BWE: Array  # bool: which of a round's own entries lie on the way

    def at(self, index_BW: Array) -> _Block:
        def taken(x: Array) -> Array:
            index = index_BW.reshape(*index_BW.shape, *(1,) * (x.ndim - 2))
            return jnp.take_along_axis(x, index, axis=1)

        return _Block(*map(taken, self))


@pytree("budget", "branch", "depth")
class CoupledGrowth(_OnBlocks):
    """The `budget` likeliest of all guesses as a tree, grown level by level as EAGLE-2's, by blocks [ours].

    Within a block the next level's laws are known, and the same whatever the guess before; at its end the `branch`
    likeliest paths are read, a whole block of each. Falcon's own trees are of fixed shapes, tuned for two models.
    Likelihoods are those at temperature 1 along the path; the guesses are point masses.

    Raises:
      ValueError: numbers below 1.
    """

    head: CoupledHead
    budget: int = 59
    branch: int = 10
    depth: int = 6

    branches = True  # however deep it may grow

    def __post_init__(self) -> None:
        for name in ("budget", "branch", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        object.__setattr__(self, "depth", min(self.depth, self.budget))  # no path is longer

    @property
    def num_nodes(self) -> int:
        return self.budget

    @property
    def _width(self) -> int:
        return min(self.branch, self.budget)

    @property
    def _beyond(self) -> int:
        return max((self.depth - 1) // self.head.block, 1) * self._width * self.head.block

    def propose(self, key, cache, context: Context):
        cache = self._standing(cache, context)
        block, last_B = self.head.block, context.lengths_B - 2
        made_B1kD = self._guessed(cache)[:, None]
        rows, places = len(last_B), max((self.depth - 1) * self._width, 1)
        root = _Block(
            made_B1kD,
            jnp.zeros((rows, 1, block), jnp.int32),
            last_B[:, None],
            jnp.zeros((rows, 1, self._beyond), bool),
        )
        nowhere = jax.tree.map(lambda x: jnp.zeros((rows, places, *x.shape[2:]), x.dtype), root)

        def read(state, beams: Beams):
            cache, known = state
            above = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), root, known).at(beams.parents_BW + 1)
            tokens_BWk = jnp.concatenate([above.tokens_BWk[..., 1:], beams.tokens_BW[..., None]], axis=-1)
            depth = beams.first // self._width + 1  # of all of them
            begun = cache, above._replace(tokens_BWk=tokens_BWk)
            cache, here = changed_if(depth % block == 0, lambda at: self._onward(context, depth, *at), begun)
            made_BWD = jax.lax.dynamic_index_in_dim(here.made_BWkD, depth % block, axis=2, keepdims=False)
            known = jax.tree.map(
                lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, beams.first, axis=1), known, here
            )
            return self.head.unembed(made_BWD), (cache, known)

        shape = {"budget": self.budget, "beams": self._width, "branch": self.branch, "depth": self.depth}
        logits_BV, state = self.head.unembed(made_B1kD[:, 0, 0]), (cache, nowhere)
        grown, (cache, _) = grown_after(context, read, state, logits_BV, by_level=True, **shape)
        return with_features(context, Proposal(grown.tokens_BN, grown.parents_BN, grown.valid_BN)), cache

    def _onward(self, context: Context, depth: Array, cache: Any, at: _Block) -> tuple[Any, _Block]:
        """The blocks that end at these nodes of one depth are read, and guess."""
        block, (rows, width) = self.head.block, at.last_BW.shape
        steps_k, own_E = jnp.arange(block, dtype=jnp.int32), jnp.arange(self._beyond, dtype=jnp.int32)
        held_B = jnp.asarray(cache.lengths_B)
        position_BWk = (context.lengths_B - 1 + depth - block)[:, None, None] + steps_k[None, None]
        position_BWk = jnp.broadcast_to(position_BWk, (rows, width, block))
        cache = self.head.read(at.made_BWkD, at.tokens_BWk, cache, above_BP=at.last_BW, positions_BPT=position_BWk)
        index_Wk = jnp.arange(width * block, dtype=jnp.int32).reshape(width, block)
        slots_BWk = held_B[:, None, None] + index_Wk[None]
        begun_B1 = context.lengths_B[:, None] - 1  # where a round's own entries begin
        own_BWE = (own_E[None] - (held_B[:, None] - begun_B1))[:, None] // block == jnp.arange(width)[None, :, None]
        sees_BWE = at.sees_BWE | own_BWE
        mask_BWS = self._mask(sees_BWE, begun_B1, cache.slots)
        made = self.head.guess(
            cache,
            slots_BWk.reshape(rows, -1),
            positions_BN=position_BWk.reshape(rows, -1),
            mask_BNS=jnp.repeat(mask_BWS, block, axis=1),
        )
        made_BWkD = made.reshape(rows, width, block, -1)
        return cache, _Block(made_BWkD, at.tokens_BWk, slots_BWk[..., -1], sees_BWE)

    def _mask(self, sees_BWE: Array, begun_B1: Array, slots: int) -> Array:
        """`mask_BWS`: the entries of the text, and of a round's own those that lie on the way."""
        place_BS = jnp.arange(slots, dtype=jnp.int32)[None] - begun_B1
        index_BWS = jnp.clip(place_BS, 0, self._beyond - 1)[:, None]
        index_BWS = jnp.broadcast_to(index_BWS, (*sees_BWE.shape[:2], slots))
        own_BWS = jnp.take_along_axis(sees_BWE, index_BWS, axis=2) & (place_BS >= 0)[:, None]
        return (place_BS < 0)[:, None] | (own_BWS & (place_BS < self._beyond)[:, None])
