"""Guesses from a collection of texts: what followed a row's last tokens there, as a tree of common beginnings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.text.matching import check_counts
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Proposal

_PAST = -2  # what is read past the last token: below every token, and below what stands between two texts


@pytree("depth")
class Datastore:
    """Texts one after the other, -1 between them, and the order of their suffixes by the first `depth` tokens."""

    tokens_T: Array
    order_T: Array
    depth: int = 64

    def read(self, start: Array, length: int) -> Array:
        """[..., length] tokens from each place on."""
        index = start[..., None] + jnp.arange(length).reshape((1,) * start.ndim + (length,))
        size = len(self.tokens_T)
        return jnp.where(index < size, self.tokens_T[jnp.minimum(index, size - 1)], _PAST)

    def spans(self, tokens_BS: Array, lengths_B: Array, sizes: tuple[int, ...]) -> tuple[Array, Array]:
        """(first_BK, count_BK): where in the order stand the suffixes that begin with a row's last `sizes[k]` tokens.

        Binary search, for all sizes at once. A count is 0 where there are none, or the row has fewer tokens.
        """
        longest, size_K = max(sizes), jnp.asarray(sizes, jnp.int32)
        start_BK = lengths_B[:, None] - size_K[None]
        column_1Q = jnp.arange(longest)[None, None]
        flat_BX = jnp.maximum(start_BK[:, :, None] + column_1Q, 0).reshape(len(tokens_BS), -1)
        flat_BX = jnp.minimum(flat_BX, tokens_BS.shape[1] - 1)
        query_BKQ = jnp.take_along_axis(tokens_BS, flat_BX, axis=1).reshape(*start_BK.shape, longest)
        asked_1KQ = column_1Q < size_K[None, :, None]
        beyond_2BK = jnp.broadcast_to(jnp.array([False, True]).reshape(2, 1, 1), (2, *start_BK.shape))

        def halve(_, bounds):
            low_2BK, high_2BK = bounds
            middle_2BK = (low_2BK + high_2BK) // 2
            there_2BKQ = self.read(self.order_T[jnp.minimum(middle_2BK, len(self.order_T) - 1)], longest)
            differs_2BKQ = (there_2BKQ != query_BKQ[None]) & asked_1KQ[None]
            first_2BK1 = jnp.argmax(differs_2BKQ, axis=-1)[..., None]
            below_2BK = jnp.take_along_axis(there_2BKQ < query_BKQ[None], first_2BK1, axis=-1)[..., 0]
            right_2BK = jnp.where(jnp.any(differs_2BKQ, axis=-1), below_2BK, beyond_2BK) & (low_2BK < high_2BK)
            return jnp.where(right_2BK, middle_2BK + 1, low_2BK), jnp.where(right_2BK, high_2BK, middle_2BK)

        begun = jnp.zeros(beyond_2BK.shape, jnp.int32), jnp.full(beyond_2BK.shape, len(self.order_T), jnp.int32)
        bounds_2BK, _ = jax.lax.fori_loop(0, len(self.order_T).bit_length(), halve, begun)
        return bounds_2BK[0], jnp.where(start_BK >= 0, bounds_2BK[1] - bounds_2BK[0], 0)


@pytree("longest", "shortest", "matches", "length", "choices")
class DatastoreTree(Stateless):
    """The `choices` commonest beginnings of what follows a row's last tokens in a datastore, as a tree.

    The last `longest` tokens are looked for, then fewer, down to `shortest`; of the first that are found, the first
    `matches` places in the datastore's order count, each with the `length` tokens after it. Of equally common
    beginnings the shorter comes first, then the lower tokens [ours]. REST (He et al. 2023, arXiv 2311.08252; sizes from
    its code, which guesses one dummy token where nothing is found, and counts across the ends of texts).
    """

    store: Datastore
    longest: int = 16
    shortest: int = 2
    matches: int = 5000
    length: int = 10
    choices: int = 64

    def __post_init__(self) -> None:
        check_counts(shortest=self.shortest, matches=self.matches, length=self.length, choices=self.choices)
        if not self.shortest <= self.longest:
            raise ValueError(f"shortest is {self.shortest} and longest {self.longest}")
        if isinstance(self.store, Datastore) and self.longest + self.length > self.store.depth:
            raise ValueError(
                f"longest and length are {self.longest} and {self.length}, together more than the "
                f"{self.store.depth} tokens by which the datastore is ordered"
            )

    @property
    def num_nodes(self) -> int:
        return min(self.choices, self.matches * self.length)

    @property
    def depth(self) -> int:
        return self.length

    def propose(self, key, state, context: Context):
        following_BXN, count_B = self._found(context)
        return commonest_beginnings(following_BXN, count_B, self.num_nodes), state

    def _found(self, context: Context) -> tuple[Array, Array]:
        """([B, X, N] what follows at the places found, in the datastore's order; how many of them there are)."""
        sizes = tuple(range(self.longest, self.shortest - 1, -1))
        first_BK, count_BK = self.store.spans(context.tokens_BS, context.lengths_B, sizes)
        longest_B1 = jnp.argmax(count_BK > 0, axis=1)[:, None]
        first_B1, count_B1, size_B1 = (
            jnp.take_along_axis(x_BK, longest_B1, axis=1)
            for x_BK in (first_BK, count_BK, jnp.broadcast_to(jnp.asarray(sizes)[None], first_BK.shape))
        )
        order_T = self.store.order_T
        place_BX = order_T[jnp.minimum(first_B1 + jnp.arange(self.matches)[None], len(order_T) - 1)]
        return self.store.read(place_BX + size_B1, self.length), jnp.minimum(count_B1[:, 0], self.matches)


def commonest_beginnings(following_BXN: Array, count_B: Array, nodes: int) -> Proposal:
    """The `nodes` beginnings that most of the first `count_b` rows have, as a tree; the rows are in order.

    A beginning ends where a text does. In ordered rows those that begin alike stand together.
    """
    batch, rows, length = following_BXN.shape
    row_1X1 = jnp.arange(rows)[None, :, None]
    counted_BX1 = row_1X1 < count_B[:, None, None]
    inside_BXN = jnp.cumprod(following_BXN >= 0, axis=2).astype(bool) & counted_BX1
    differs_BXN = jnp.cumsum(following_BXN[:, 1:] != following_BXN[:, :-1], axis=2) > 0
    begins_BXN = jnp.pad(differs_BXN, ((0, 0), (1, 0), (0, 0)), constant_values=True) | ~counted_BX1
    later_BXN = jnp.where(begins_BXN, row_1X1, rows)[:, 1:]
    end_BXN = jnp.pad(jax.lax.cummin(later_BXN, axis=1, reverse=True), ((0, 0), (0, 1), (0, 0)), constant_values=rows)
    end_BXN = jnp.minimum(end_BXN, count_B[:, None, None])
    rank_1N = (length - jnp.arange(length))[None, None]  # the shorter of equally common ones first
    weight_BXN = jnp.where(begins_BXN & inside_BXN, (end_BXN - row_1X1) * (length + 1) + rank_1N, 0)
    weight_BM, at_BM = jax.lax.top_k(weight_BXN.reshape(batch, -1), nodes)
    # A node's parent begins where the run of its row begins, one token less deep.
    first_BXN = jax.lax.cummax(jnp.where(begins_BXN, row_1X1, 0), axis=1)
    above_BXN = jnp.pad(first_BXN[:, :, :-1] * length + jnp.arange(length - 1)[None, None], ((0, 0), (0, 0), (1, 0)))
    above_BM = jnp.take_along_axis(above_BXN.reshape(batch, -1), at_BM, axis=1)
    is_above_BMM = (at_BM[:, None] == above_BM[:, :, None]) & (at_BM % length > 0)[:, :, None]
    parents_BM = jnp.where(jnp.any(is_above_BMM, axis=2), jnp.argmax(is_above_BMM, axis=2), -1).astype(jnp.int32)
    tokens_BM = jnp.take_along_axis(following_BXN.reshape(batch, -1), at_BM, axis=1)
    valid_BM = weight_BM > 0
    return Proposal(jnp.where(valid_BM, tokens_BM, 0), jnp.where(valid_BM, parents_BM, -1), valid_BN=valid_BM)
