"""Heads that go on from the target's hidden states with their own outputs in place of those to come: EAGLE's kind.

Entry t of such a head's cache is made of the target's hidden state at position t and the token at t + 1, and guesses
the token at t + 2. After every verification the entries of what it decided are made of the target's true hidden states;
what the head wrote while it guessed, from states of its own, is thrown away.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.levels import (
    Counts,
    Level,
    distinct,
    guessed_tree,
    read_nodes,
)
from adaspec_jax.decoding.drafters.models.chain import guessed_chain
from adaspec_jax.decoding.drafters.models.growth import Beams, grown_after
from adaspec_jax.decoding.drafters.models.reread import Read
from adaspec_jax.decoding.drafters.shapes import InARow, InLevels
from adaspec_jax.decoding.drafters.target.decided import decided, last_decided, with_features
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal

# EAGLE-1's: 25 nodes, of which the likelier have more children. [code]
EAGLE_TREE: Counts = ((4,), (3, 2, 2, 1), (3, 2, 2, 1, 0, 0, 0, 0), (3, 0, 0, 0, 0, 0, 0, 0), (2, 0, 0))


class FeatureHead(Protocol):
    """A head on a target, with the embeddings and the output matrix that it reads; `models.heads` has such values."""

    layers: tuple[float, ...]  # the target's whose hidden states it reads

    def entered(self, features_BTF: Array) -> Array:
        """[B, T, D] of the target's hidden states after `layers`, side by side."""

    def read(
        self, hidden_BTD: Array, tokens_BT: Array, cache: Any, *, positions_BT=None, mask_BTS=None
    ) -> tuple[Array, Array, Any]:
        """(made_BTD, what stands for the hidden states at the tokens, the cache T entries longer).

        Column t has a hidden state and the token after it; positions are the hidden states'.
        """

    def unembed(self, made: Array) -> Array:
        """Logits [..., V] of what follows the tokens that were read."""

    def init_cache(self, batch_size: int, slots: int) -> Any: ...


class _Standing(NamedTuple):
    """A head after the last committed token."""

    logits_BV: Array
    hidden_BD: Array  # for the hidden state there, which the target has not computed yet
    cache: Any  # lengths_B - 1 entries: one for every hidden state but that


class OnFeatures:
    """What drafters of one head have in common: its cache, and what it reads between rounds.

    A row whose prompt is one token has no hidden state before its last token: it guesses nothing in its first round.
    """

    head: FeatureHead

    @property
    def asks(self) -> Asks:
        return Asks(layers=self.head.layers, likeliest=0)

    def init(self, prompt: Context, slots: int) -> Any:
        hidden_BTD = self.head.entered(jnp.concatenate(prompt.hidden, axis=-1))
        cache = self.head.init_cache(len(prompt.lengths_B), slots + self._beyond)
        following_BT = jnp.roll(prompt.tokens_BS, -1, axis=1)
        return self.head.read(hidden_BTD, following_BT, cache)[2].roll_back(prompt.lengths_B - 1)

    @property
    def _beyond(self) -> int:
        """Entries that a round makes beyond those that a verification has room for."""
        return 0

    def _standing(self, cache: Any, context: Context) -> _Standing:
        """The head when it has read what the last round decided, as far as the target has computed it."""
        made_BD, handed_BD, cache = self._read_on(cache, context)
        return _Standing(self.head.unembed(made_BD), handed_BD, cache)

    def _read_on(self, cache: Any, context: Context) -> tuple[Array, Array, Any]:
        """What the head makes of that at its end, and what it hands on there; and its cache."""
        features_BWF, start_B = decided(context, self.depth)
        tokens_BW = tokens_from(context.tokens_BS, start_B + 1, self.depth + 1)
        hidden_BWD = self.head.entered(features_BWF)
        made_BWD, handed_BWD, cache = self.head.read(hidden_BWD, tokens_BW, cache.roll_back(start_B))
        made_BD, handed_BD = (last_decided(context, x) for x in (made_BWD, handed_BWD))
        return made_BD, handed_BD, cache.roll_back(context.lengths_B - 1)


@pytree()
class _Further:
    """A head's cache in the middle of a chain, and what stands for the hidden state at the chain's end."""

    cache: Any
    hidden_BD: Array

    @property
    def lengths_B(self) -> Array:
        """The next guess's place in the rows."""
        return self.cache.lengths_B + 1


@pytree("length")
class FeatureDrafter(InARow, OnFeatures):
    """`length` guesses in a row, drawn from the head under the target's sampling settings, each from the one before.

    How servers decode EAGLE's heads (Li et al. 2024 and 2025, arXiv 2401.15077 and 2503.01840).
    """

    head: FeatureHead
    length: int = 5

    def propose(self, key, cache, context: Context):
        at = self._standing(cache, context)
        begun = Read(at.logits_BV, at.hidden_BD, _Further(at.cache, at.hidden_BD))
        proposal, after = guessed_chain(self._guess, begun, key, context, length=self.length)
        return with_features(context, proposal), after.cache

    def _guess(self, tokens_B1: Array, at: _Further) -> tuple[Array, _Further]:
        made_B1D, handed_B1D, cache = self.head.read(at.hidden_BD[:, None], tokens_B1, at.cache)
        return self.head.unembed(made_B1D), _Further(cache, handed_B1D[:, 0])


@pytree("counts")
class FeatureTree(InLevels, OnFeatures):
    """A tree of fixed shape: EAGLE-1's, as its code has it (Li et al. 2024, arXiv 2401.15077).

    Siblings are drawn without replacement and state the law of what their earlier siblings have left; greedily they are
    the head's likeliest tokens.

    Raises:
      ValueError: counts that are no tree's.
    """

    head: FeatureHead
    counts: Counts = EAGLE_TREE

    def propose(self, key, cache, context: Context):
        at = self._standing(cache, context)
        position_BR, mask_BRS = read_nodes(self.counts, at.cache.lengths_B, at.cache.slots)

        def expand(state, level: Level):
            cache, hidden_BWD = state
            where = {"positions_BT": position_BR[:, level.places], "mask_BTS": mask_BRS[:, level.places]}
            read = self.head.read(hidden_BWD[:, level.above_W], level.tokens_BW, cache, **where)
            return self.head.unembed(read[0]), (read[2], read[1])

        state = at.cache, at.hidden_BD[:, None]
        proposal, (cache, _) = guessed_tree(self.counts, expand, state, at.logits_BV, key, context, distinct)
        return with_features(context, proposal), cache


@pytree("budget", "branch", "depth", "least", "widths")
class FeatureGrowth(OnFeatures):
    """EAGLE-2's tree (Li et al. 2024, arXiv 2406.16858), which EAGLE-3 keeps: the `budget` likeliest of all guesses.

    Level by level, `branch` nodes are read in one pass, and the `branch` likeliest tokens after each are guesses, of
    which the best are read next; `depth` levels at most. Likelihoods are those at temperature 1 along the path,
    whatever the sampling's; the guesses are point masses. Their script has 59 guesses on 6 levels, their default 8.

    Guesses less likely than `least` are dropped [ours], and of `widths`, numbers of guesses, the smallest that holds
    those of all rows is verified.

    Raises:
      ValueError: numbers below 1; a `least` that is no probability.
    """

    head: FeatureHead
    budget: int = 59
    branch: int = 10
    depth: int = 6
    least: float = 0.0
    widths: tuple[int, ...] = ()

    branches = True  # however deep it may grow

    def __post_init__(self) -> None:
        for name in ("budget", "branch", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.least < 1:
            raise ValueError(f"least is {self.least}; it must be at least 0 and below 1")
        object.__setattr__(self, "depth", min(self.depth, self.budget))  # no path is longer

    @property
    def num_nodes(self) -> int:
        return self.budget

    @property
    def _beyond(self) -> int:
        """`grow`'s R."""
        return (self.depth - 1) * min(self.branch, self.budget)

    def propose(self, key, cache, context: Context):
        at = self._standing(cache, context)
        states_BRD = jnp.zeros((len(at.hidden_BD), max(self._beyond, 1), at.hidden_BD.shape[1]), at.hidden_BD.dtype)

        def read(state, beams: Beams):
            cache, states_BRD = state
            above_BWD = jnp.take_along_axis(states_BRD, jnp.maximum(beams.parents_BW, 0)[..., None], axis=1)
            above_BWD = jnp.where(beams.parents_BW[..., None] < 0, at.hidden_BD[:, None], above_BWD)
            positions_BW = context.lengths_B[:, None] - 2 + beams.depth_BW
            mask_BWS = beams.attention_mask(context.lengths_B - 1, cache.slots)
            made_BWD, handed_BWD, cache = self.head.read(
                above_BWD, beams.tokens_BW, cache, positions_BT=positions_BW, mask_BTS=mask_BWS
            )
            states_BRD = jax.lax.dynamic_update_slice_in_dim(states_BRD, handed_BWD, beams.first, axis=1)
            return self.head.unembed(made_BWD), (cache, states_BRD)

        shape = {"budget": self.budget, "beams": self.branch, "branch": self.branch, "depth": self.depth}
        least = jnp.log(jnp.maximum(self.least, 1e-30))
        least_B = jnp.broadcast_to(least, context.lengths_B.shape) if self.least else None
        grown, (cache, _) = grown_after(
            context, read, (at.cache, states_BRD), at.logits_BV, least_B=least_B, by_level=True, **shape
        )
        valid_BN = grown.valid_BN & (grown.score_BN >= least) if self.least else grown.valid_BN
        proposal = with_features(context, Proposal(grown.tokens_BN, grown.parents_BN, valid_BN))
        if not self.widths:
            return proposal, cache
        return _narrowed(proposal), cache


def _narrowed(proposal: Proposal) -> Proposal:
    """The proposal with the width that its valid guesses, the first of each row, need."""
    width = jnp.max(jnp.sum(proposal.valid_BN, axis=1))
    return Proposal(proposal.tokens_BN, proposal.parents_BN, proposal.valid_BN, width=width)
