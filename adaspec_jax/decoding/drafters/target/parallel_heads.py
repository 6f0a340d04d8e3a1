"""Heads that each guess a token further on from one hidden state of the target's: Medusa's kind."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.levels import Counts, parents_of, ranks_of
from adaspec_jax.decoding.drafters.shapes import AsDeepAsItsGuesses, UpToItsGuesses
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.target.decided import decided, last_decided, with_features
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal

# Medusa's and Hydra's: 63 nodes on levels of 10, 28, 23 and 2; of their code's 64 the first is our root. [code]
MEDUSA_TREE: Counts = (
    (10,),
    (10, 7, 3, 2, 1, 1, 1, 1, 1, 1),
    (10, 3, 2, 1, 1, 1, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, *(0,) * 10),
    (2, *(0,) * 22),
)


class ParallelHead(Protocol):
    """`guesses` heads beside a target; `models.heads` has such values."""

    layers: tuple[float, ...]  # the target's whose hidden states they read
    guesses: int

    def guess(self, i: int, inputs: Array) -> Array:
        """Head i's logits [..., V], of hidden states [..., F], for the token i + 2 after theirs."""


class _Beside(Stateless):
    """What drafters of such heads have in common: the hidden state before the last committed token is all they read."""

    head: ParallelHead

    @property
    def asks(self) -> Asks:
        return Asks(layers=self.head.layers, likeliest=0)

    def _logits(self, context: Context) -> Array:
        """[B, depth, V]: after the last committed token, and so many places further on less one."""
        features_BF = last_decided(context, decided(context, self.depth)[0])
        return processed_apart(context, jnp.stack([self.head.guess(i, features_BF) for i in range(self.depth)], axis=1))


@pytree("length")
class ParallelChain(UpToItsGuesses, _Beside):
    """`length` guesses in a row, or as many as there are heads, the i-th drawn from head i's law under the target's
    sampling settings.

    A head's law knows nothing of the guesses before its own, so that each is stated as it is. How servers decode
    Medusa's heads (Cai et al. 2024, arXiv 2401.10774).

    Raises:
      ValueError: a length below 1.
    """

    head: ParallelHead
    length: int

    def propose(self, key, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        return with_features(context, drawn_apart(key, context, self._logits(context))), state


@pytree("counts")
class ParallelTree(AsDeepAsItsGuesses, _Beside):
    """A tree of fixed shape, in which child r of a node at depth d is the r-th likeliest token of head d.

    Cai et al. 2024 (arXiv 2401.10774), the tree of their code. Point masses at every temperature.

    Raises:
      ValueError: counts that are no tree's, or are deeper than there are heads.
    """

    head: ParallelHead
    counts: Counts = MEDUSA_TREE

    def propose(self, key, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        return with_features(context, ranked(self.counts, self._logits(context), context)), state


def processed_apart(context: Context, logits_BDV: Array) -> Array:
    """Logits of places in a row, of which none knows what stands at the others, after the sampling's processors."""
    present_BV = context.present(logits_BDV.shape[-1])
    return context.sampling.processed(logits_BDV, None if present_BV is None else present_BV[:, None])


def ranked(counts: Counts, logits_BDV: Array, context: Context) -> Proposal:
    """The tree in which child r of a node at depth d is the r-th likeliest token there; processed logits."""
    ranks, noisy_BDV = ranks_of(counts), logits_BDV
    if context.has_noise:
        noisy_BDV = context.noisy(logits_BDV, context.lengths_B[:, None] + jnp.arange(len(counts))[None])
    most = min(1 + max(int(rank_W.max()) for rank_W in ranks), logits_BDV.shape[-1])
    tokens_BDK = jax.lax.top_k(noisy_BDV, most)[1].astype(jnp.int32)
    # Where a vocabulary is smaller than the tree is wide, its last token stands there again.
    level_N = np.concatenate([np.full(len(rank_W), depth) for depth, rank_W in enumerate(ranks)])
    rank_N = np.minimum(np.concatenate(ranks), most - 1)
    opinion_BNV = logits_BDV[:, level_N] if context.opinion else None
    return Proposal(tokens_BDK[:, level_N, rank_N], parents_of(counts), opinion_BNV=opinion_BNV)
