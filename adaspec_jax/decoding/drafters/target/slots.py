"""Slots that guess at once, of hidden states that have been through layers with a cache: Amphista's kind.

Entry t of that cache is made of the target's hidden state at position t and the token at t + 1, as of EAGLE's heads; no
slot knows what another guessed, only what it is about to.
"""

from __future__ import annotations

from typing import Any, Protocol

from jax import Array

from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.levels import Counts
from adaspec_jax.decoding.drafters.shapes import AsDeepAsItsGuesses, UpToItsGuesses
from adaspec_jax.decoding.drafters.target.decided import with_features
from adaspec_jax.decoding.drafters.target.features import FeatureHead, OnFeatures
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE, processed_apart, ranked
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Proposal


class SlotHead(FeatureHead, Protocol):
    """A head with `guesses` slots; its `unembed` gives logits [..., guesses, V], the nearest token's first."""

    guesses: int


class _InSlots(OnFeatures):
    """What drafters of such heads have in common."""

    head: SlotHead

    def _logits(self, cache: Any, context: Context) -> tuple[Array, Any]:
        """([B, depth, V] of the places after the last committed token, the cache)."""
        made_BD, _, cache = self._read_on(cache, context)
        return processed_apart(context, self.head.unembed(made_BD)[:, : self.depth]), cache


@pytree("length")
class SlotChain(UpToItsGuesses, _InSlots):
    """`length` guesses in a row, or as many as there are slots, each drawn from its slot's law under the target's
    sampling settings, and stated as it is.

    Raises:
      ValueError: a length below 1.
    """

    head: SlotHead
    length: int

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        logits_BDV, cache = self._logits(cache, context)
        return with_features(context, drawn_apart(key, context, logits_BDV)), cache


@pytree("counts")
class SlotTree(AsDeepAsItsGuesses, _InSlots):
    """A tree of fixed shape, in which child r of a node at depth d is the r-th likeliest token of slot d: Medusa's.

    Point masses at every temperature.

    Raises:
      ValueError: counts that are no tree's, or are deeper than there are slots.
    """

    head: SlotHead
    counts: Counts = MEDUSA_TREE

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        logits_BDV, cache = self._logits(cache, context)
        return with_features(context, ranked(self.counts, logits_BDV, context)), cache
