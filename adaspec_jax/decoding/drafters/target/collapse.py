"""Guesses that may repeat or be blank, collapsed before they are judged: CTC drafting's.

Wen et al. 2024 (arXiv 2412.00061). A path of the tree spells the text that is left of it when tokens equal to the one
before them, and blanks, are dropped. Their code packs each path to the left and blots the dropped nodes out of the
attention; it leaves positions as they were, and blanks where no token repeats. Here a node hangs below the nearest one
above it that is kept, so that positions and attention follow from the tree that is left; of nodes that then spell the
same, one is judged, with the children of all.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.drafters.levels import Counts, parents_of, ranks_of
from adaspec_jax.decoding.drafters.shapes import InLevels
from adaspec_jax.decoding.drafters.target.decided import with_features
from adaspec_jax.decoding.drafters.target.features import FeatureHead, OnFeatures
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE, processed_apart
from adaspec_jax.decoding.noise import noise_at
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.types import Context, Proposal


class FrameHead(FeatureHead, Protocol):
    """A feature head that may say nothing."""

    tokens: int  # V
    blank: int  # the column that stands for nothing: V, or a token that is never guessed

    def with_blank(self, made: Array) -> Array:
        """Logits [..., V] or [..., V + 1] of what follows the tokens that were read, the blank among them."""


@pytree("counts")
class FrameTree(InLevels, OnFeatures):
    """A tree of fixed shape before it is collapsed: child r of a node at depth d is the r-th likeliest of frame d.

    Frames are the head's guesses in a row, each after the likeliest token of the one before, as in their code; where
    that is the blank, after the likeliest that is none [ours]. Which alignments spell a token is not summed over, so
    that it has no law to state: guesses are point masses at every temperature.

    Raises:
      ValueError: counts that are no tree's.
    """

    head: FrameHead
    counts: Counts = MEDUSA_TREE

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        del key
        (made_BD, hidden_BD, cache), frames = self._read_on(cache, context), []
        for depth in range(self.depth):
            logits_BV, scores_BV = self._scores(context, self.head.with_blank(made_BD), depth)
            frames.append((logits_BV, scores_BV))
            if depth + 1 < self.depth:
                tokens_B1 = most_likely(scores_BV.at[:, self.head.blank].set(-jnp.inf))[:, None]
                made_B1D, handed_B1D, cache = self.head.read(hidden_BD[:, None], tokens_B1, cache)
                made_BD, hidden_BD = made_B1D[:, 0], handed_B1D[:, 0]
        logits_BDV, scores_BDV = (jnp.stack(each, axis=1) for each in zip(*frames, strict=True))
        return with_features(context, self._collapsed(context, logits_BDV, scores_BDV)), cache

    def _scores(self, context: Context, wide_BV: Array, depth: int) -> tuple[Array, Array]:
        """(the tokens' logits after the sampling's processors, what a frame's candidates are ranked by)."""
        count = self.head.tokens
        logits_BV = processed_apart(context, wide_BV[:, None, :count])[:, 0]
        scores_BV = jnp.concatenate([logits_BV, wide_BV[:, count:]], axis=-1)
        if context.has_noise:  # of the place that the frame takes where none before it is dropped; blanks have none
            noise_BV = noise_at(context.noise_B, context.lengths_B[:, None] + depth, count)[:, 0]
            noise_BV = jnp.pad(noise_BV, ((0, 0), (0, wide_BV.shape[-1] - count)))
            scores_BV = context.sampling.filtered(scores_BV) + noise_BV
        return logits_BV, scores_BV

    def _collapsed(self, context: Context, logits_BDV: Array, scores_BDV: Array) -> Proposal:
        ranks = ranks_of(self.counts)
        most = min(1 + max(int(rank_W.max()) for rank_W in ranks), scores_BDV.shape[-1])
        best_BDK = jax.lax.top_k(scores_BDV, most)[1].astype(jnp.int32)
        level_N = np.concatenate([np.full(len(rank_W), depth) for depth, rank_W in enumerate(ranks)])
        tokens_BN = best_BDK[:, level_N, np.minimum(np.concatenate(ranks), most - 1)]
        parents_BN, kept_BN = collapsed(self.counts, tokens_BN, self.head.blank)
        opinion_BNV = logits_BDV[:, level_N] if context.opinion else None
        tokens_BN = jnp.where(kept_BN, tokens_BN, 0)
        return Proposal(tokens_BN, parents_BN, kept_BN, opinion_BNV=opinion_BNV)


def collapsed(counts: Counts, tokens_BN: Array, blank: int) -> tuple[Array, Array]:
    """(parents_BN, kept_BN) of the tree that is left of one of this shape: int32, -1 the root; and bool.

    A node is dropped where it is blank or equal to the node above it, and where a node before it spells the same text.
    The parents of dropped nodes mean nothing.
    """
    above_N, batch = parents_of(counts), len(tokens_BN)
    root_B1 = jnp.full((batch, 1), -1, jnp.int32)
    stands_BN, parents_BN, kept_BN = root_B1[:, :0], root_B1[:, :0], jnp.zeros((batch, 0), bool)
    first = 0
    for row in counts:
        here_W = np.arange(first, first + sum(row))
        token_BW, above_W = tokens_BN[:, here_W], above_N[here_W]
        # Where the path to a node's parent stands in the tree that is left; -1, the last column: at the root.
        parent_BW = jnp.concatenate([stands_BN, root_B1], axis=1)[:, above_W]
        before_BW = jnp.concatenate([tokens_BN[:, :first], root_B1], axis=1)[:, above_W]
        dropped_BW = (token_BW == blank) | (token_BW == before_BW)
        parents_BN = jnp.concatenate([parents_BN, parent_BW], axis=1)
        kept_BN = jnp.concatenate([kept_BN, ~dropped_BW], axis=1)
        alike_BWN = (parents_BN[:, None] == parent_BW[..., None]) & kept_BN[:, None]
        alike_BWN &= tokens_BN[:, None, : here_W[-1] + 1] == token_BW[..., None]
        earliest_BW = jnp.argmax(alike_BWN, axis=-1).astype(jnp.int32)  # itself, of those that are kept, at the latest
        stands_BN = jnp.concatenate([stands_BN, jnp.where(dropped_BW, parent_BW, earliest_BW)], axis=1)
        kept_BN = kept_BN.at[:, here_W].set(~dropped_BW & (earliest_BW == jnp.asarray(here_W)[None]))
        first = here_W[-1] + 1
    return parents_BN, kept_BN
