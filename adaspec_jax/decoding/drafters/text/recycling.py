"""Token recycling: what the target thought likely after a token is guessed the next time that token is written."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal

# How many children each node has, level by level: 80 nodes on levels of 8, 21, 25, 15, 8 and 3. [code, version 2.2.2]
TREE = (
    (8,),
    (8, 4, 3, 2, 1, 1, 1, 1),
    (8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0),
    (5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0),
    (3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0),
    (2, 0, 0, 1, 0, 0, 0, 0),
)


class _Learnt(NamedTuple):
    table_BVK: Array  # the target's likeliest tokens when it last read each token in this request; -1: it has not
    tokens_BM: Array  # the last tree, its root first; the vocabulary's size before there is one
    lengths_B: Array  # tokens of the text that it followed


@pytree("vocab_size", "tree")
class TokenRecycling:
    """A tree of fixed shape, in which child r of a token is the target's r-th choice where that token was last read.

    Luo et al. 2025 (arXiv 2408.08696): a matrix of every token's last candidates, zero at the start, and after each
    verification written anew at the root and at all nodes, refused ones too; of equal tokens the last one counts. The
    prompt teaches nothing, as in their code. Their matrix outlives requests: here it is the `memory`, below a matrix of
    each row's own; without it each request begins with zeros.
    """

    vocab_size: int
    tree: tuple[tuple[int, ...], ...] = TREE
    memory: Array | None = None  # [V, K]

    @property
    def asks(self) -> Asks:
        return Asks(likeliest=min(max(map(max, self.tree)), self.vocab_size))

    @property
    def num_nodes(self) -> int:
        return sum(map(sum, self.tree))

    @property
    def depth(self) -> int:
        return len(self.tree)

    def init(self, prompt: Context, slots: int) -> _Learnt:
        batch = prompt.lengths_B.shape[0]
        return _Learnt(
            jnp.full((batch, self.vocab_size, self.asks.likeliest), -1, jnp.int32),
            jnp.full((batch, self.num_nodes + 1), self.vocab_size, jnp.int32),
            jnp.zeros((batch,), jnp.int32),
        )

    def blank(self) -> Array:
        return jnp.zeros((self.vocab_size, self.asks.likeliest), jnp.int32)

    def remember(self, state: _Learnt, context: Context, begun_B: Array) -> Array:
        def later(before_VK, row_VK):
            return jnp.where(row_VK < 0, before_VK, row_VK), None

        return jax.lax.scan(later, jnp.asarray(self.memory), self._taught(state, context))[0]

    def propose(self, key, state: _Learnt, context: Context) -> tuple[Proposal, _Learnt]:
        row_B1 = jnp.arange(context.lengths_B.shape[0])[:, None]
        table_BVK = self._taught(state, context)
        level_BW = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        levels = [level_BW]
        parents_N: list[int] = []
        for counts in self.tree:
            first = len(parents_N) - len(counts)  # of the level above
            above = [place for place, count in enumerate(counts) for _ in range(count)]
            ranks = [rank for count in counts for rank in range(count)]
            ranks_W = np.minimum(ranks, self.asks.likeliest - 1)  # a vocabulary may be smaller than a tree is wide
            above_BW = level_BW[:, np.array(above)]
            before_BW = 0 if self.memory is None else self.memory[above_BW, ranks_W[None]]
            own_BW = table_BVK[row_B1, above_BW, ranks_W[None]]
            level_BW = jnp.where(own_BW < 0, before_BW, own_BW)
            levels.append(level_BW)
            parents_N += [first + place if parents_N else -1 for place in above]
        tokens_BM = jnp.concatenate(levels, axis=1)
        learnt = _Learnt(table_BVK, tokens_BM, context.lengths_B)
        return Proposal(tokens_BM[:, 1:], np.array(parents_N, np.int32)), learnt

    def _taught(self, state: _Learnt, context: Context) -> Array:
        """The rows' tables with what the last verification said at the last tree; rows that were done learn nothing."""
        row_B1, nowhere = jnp.arange(len(state.tokens_BM))[:, None], self.vocab_size
        counts_BM = _is_last(state.tokens_BM) & (context.lengths_B > state.lengths_B)[:, None]
        rows_BM = jnp.where(counts_BM, state.tokens_BM, nowhere)
        return state.table_BVK.at[row_B1, rows_BM].set(context.likeliest_BMK, mode="drop")


def _is_last(tokens_BM: Array) -> Array:
    """Whether no later token of the row is the same: a scatter of equal indices has no order of its own."""
    same_BMM = tokens_BM[:, :, None] == tokens_BM[:, None, :]
    later_MM = np.triu(np.ones(same_BMM.shape[1:], bool), 1)
    return ~jnp.any(same_BMM & later_MM[None], axis=2)
