"""Heads beside each other of which each reads the guesses before its own: Hydra's kind."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.levels import (
    Children,
    Counts,
    Level,
    distinct,
    guessed_tree,
    likeliest,
    one_by_one,
)
from adaspec_jax.decoding.drafters.shapes import AsDeepAsItsGuesses, UpToItsGuesses
from adaspec_jax.decoding.drafters.target.decided import decided, last_decided, with_features
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal


class SequentialHead(Protocol):
    """`guesses` heads beside a target, with the embeddings that they read; `models.heads` has such values."""

    layers: tuple[float, ...]  # the target's whose hidden states they read
    guesses: int
    prefixed: bool  # whether hidden states pass a layer of the heads' own first

    def pieces(self, i: int) -> int:
        """How many tokens head i reads, at most i + 1: those that follow the hidden state's own."""

    def embedded(self, tokens: Array) -> Array:
        """[..., D]."""

    def guess(self, i: int, inputs: Array) -> Array:
        """Head i's logits [..., V], of a hidden state and its pieces [..., F + pieces D], for the token i + 2 on."""

    def prefix(self, features_BTF: Array, cache: Any) -> tuple[Array, Any]:
        """(what heads read in place of the hidden states, the cache T entries longer)."""

    def init_cache(self, batch_size: int, slots: int) -> Any:
        """Of the heads' own layer."""


class _Sequential:
    """What drafters of such heads have in common.

    Where hidden states pass a layer first, its cache is rolled back after every verification to what was committed
    before, and reads the target's hidden states at what was decided.
    """

    head: SequentialHead
    _children: Children

    @property
    def _shape(self) -> Counts:
        raise NotImplementedError

    @property
    def asks(self) -> Asks:
        return Asks(layers=self.head.layers, likeliest=0)

    def init(self, prompt: Context, slots: int) -> Any:
        if not self.head.prefixed:
            return ()
        features_BTF = jnp.concatenate(prompt.hidden, axis=-1)
        cache = self.head.init_cache(len(prompt.lengths_B), slots)
        return self.head.prefix(features_BTF, cache)[1].roll_back(prompt.lengths_B - 1)

    def propose(self, key, state: Any, context: Context) -> tuple[Proposal, Any]:
        features_BWF, start_B = decided(context, self.depth)
        if self.head.prefixed:
            features_BWF, state = self.head.prefix(features_BWF, state.roll_back(start_B))
            state = state.roll_back(context.lengths_B - 1)
        root_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        features_BF = last_decided(context, features_BWF)
        read_B1I = self._with_token(features_BF[:, None], root_B1)

        def expand(read_BWI: Array, level: Level) -> tuple[Array, Array]:
            read_BWI = self._with_token(read_BWI[:, level.above_W], level.tokens_BW)
            return self._guess(level.depth, features_BF, read_BWI), read_BWI

        logits_BV = self._guess(0, features_BF, read_B1I)[:, 0]
        proposal, _ = guessed_tree(self._shape, expand, read_B1I, logits_BV, key, context, self._children)
        return with_features(context, proposal), state

    def _with_token(self, read_BWI: Array, tokens_BW: Array) -> Array:
        """What a hidden state and the tokens on the path give heads to read, with one more token."""
        return jnp.concatenate([read_BWI, self.head.embedded(tokens_BW).astype(read_BWI.dtype)], axis=-1)

    def _guess(self, i: int, features_BF: Array, read_BWI: Array) -> Array:
        """[B, W, V]: head i reads the hidden state and the first of the tokens, as many as are its pieces."""
        per_token = (read_BWI.shape[-1] - features_BF.shape[-1]) // (i + 1)
        return self.head.guess(i, read_BWI[..., : features_BF.shape[-1] + self.head.pieces(i) * per_token])


@pytree("length")
class SequentialChain(UpToItsGuesses, _Sequential):
    """`length` guesses in a row, or as many as there are heads, each drawn under the target's sampling settings from
    what its head makes of those before: how a server would decode Hydra's (Ankner et al. 2024, arXiv 2402.05109).

    Raises:
      ValueError: a length below 1.
    """

    head: SequentialHead
    length: int

    _children = staticmethod(distinct)

    @property
    def _shape(self) -> Counts:
        return one_by_one(self.length)

    def propose(self, key, state: Any, context: Context) -> tuple[Proposal, Any]:
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, parents_BN=None), state


@pytree("counts")
class SequentialTree(AsDeepAsItsGuesses, _Sequential):
    """A tree of fixed shape, level by level: head d reads the path to a node at depth d, and guesses its children.

    Ankner et al. 2024 (arXiv 2402.05109), with Medusa's tree, as their code has it. Children are the likeliest tokens,
    point masses at every temperature.

    Raises:
      ValueError: counts that are no tree's, or are deeper than there are heads.
    """

    head: SequentialHead
    counts: Counts = MEDUSA_TREE

    _children = staticmethod(likeliest)

    @property
    def _shape(self) -> Counts:
        return self.counts
