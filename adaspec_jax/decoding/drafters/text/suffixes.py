"""Guesses from what followed all suffixes of a row that stood before: in its text, an earlier answer, a datastore."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.text.datastore import Datastore
from adaspec_jax.decoding.drafters.text.matching import chain, check_counts, match_lengths, match_lengths_in
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context


class _Stands(NamedTuple):
    """Places where patterns end, of which R patterns share G sets of X places, and the D tokens after each."""

    among_BGRX: Array  # bool: the pattern ends there
    total_BGR: Array  # how often the pattern stands in the text
    limit_BGR: Array  # guesses that its length allows
    after_BGXD: Array
    there_BGXD: Array  # bool
    rank_BGX: Array  # of equally frequent tokens the one at the lowest


@pytree("length", "depth", "factor", "offset", "threshold", "places", "corpus_longest", "widths", "remembered")
class SuffixPath(InARow, Stateless):
    """The most frequent path after that suffix of the row which promises most.

    A suffix of m tokens is followed by at most `factor` m + `offset` guesses, `length`, and `depth` - m, each the token
    that most often followed suffix and guesses so far, as long as the product of their frequencies is `threshold` or
    more. The sum of these products is what the suffix promises; of equal sums the longer suffix wins, and of the row's
    own text, earlier answers and a datastore the first. SuffixDecoding (Oliaro et al. 2024, arXiv 2411.04975), the
    chain, with the sizes and the counting of its code (ArcticInference): the row's own last tokens count as a stand
    that nothing follows.

    Ours: of equally frequent tokens the one that came first; of more than `places` stands of a suffix so many count,
    those in a row or an answer that go back furthest and are latest, those in a datastore at equal distances in its
    order, where suffixes of at most `corpus_longest` tokens are looked for. The `memory` holds the last `remembered`
    tokens of the answers to earlier requests, counted apart from the datastore's; theirs has whole answers, as many as
    it is told, and those that are still being written. Without it the datastore alone stands for them.
    """

    store: Datastore | None = None
    length: int = 32
    depth: int = 64
    factor: float = 1.0
    offset: float = 0.0
    threshold: float = 0.1
    places: int = 64
    corpus_longest: int = 16
    widths: tuple[int, ...] = (0, 8)
    remembered: int = 4096
    memory: Array | None = None  # [remembered]: earlier answers one after the other, each followed by -1

    def __post_init__(self) -> None:
        sizes = {"places": self.places, "corpus_longest": self.corpus_longest, "remembered": self.remembered}
        check_counts(length=self.length, **sizes)
        if self.depth < 2:
            raise ValueError(f"depth must be at least 2, not {self.depth}")
        if self.corpus_longest >= self.depth:
            raise ValueError(f"corpus_longest is {self.corpus_longest}; it must be below depth, which is {self.depth}")

    def blank(self) -> Array:
        return jnp.full((self.remembered,), -1, jnp.int32)

    def remember(self, state: tuple, context: Context, begun_B: Array) -> Array:
        answers_BS = tokens_from(context.tokens_BS, begun_B, context.tokens_BS.shape[1])

        def append(memory_T, answer):
            answer_S, count = answer
            whole = jnp.concatenate([memory_T, jnp.pad(answer_S, (0, 1)).at[count].set(-1)])
            return jax.lax.dynamic_slice(whole, (count + 1,), memory_T.shape), None

        return jax.lax.scan(append, jnp.asarray(self.memory), (answers_BS, context.lengths_B - begun_B))[0]

    def propose(self, key, state, context: Context):
        guesses_BN, count_B, promise_B = self._best(self._in_text(context))
        others = [self._in_answers(context)] if self.memory is not None else []
        others += [self._in_store(self.store, context)] if self.store is not None else []
        for stands in others:
            theirs_BN, their_count_B, their_promise_B = self._best(stands)
            theirs_B = their_promise_B > promise_B
            guesses_BN = jnp.where(theirs_B[:, None], theirs_BN, guesses_BN)
            count_B = jnp.where(theirs_B, their_count_B, count_B)
            promise_B = jnp.maximum(their_promise_B, promise_B)
        return chain(guesses_BN, jnp.arange(self.length)[None] < count_B[:, None]), state

    def _in_text(self, context: Context) -> _Stands:
        match_BS = match_lengths(context.tokens_BS, context.lengths_B, self.depth - 1)
        stands = self._in_one(match_BS, context.tokens_BS, context.lengths_B, context)
        return stands._replace(total_BGR=stands.total_BGR + 1)

    def _in_answers(self, context: Context) -> _Stands:
        memory_T = jnp.asarray(self.memory)
        match_BT = match_lengths_in(memory_T, context.tokens_BS, context.lengths_B, self.depth - 1)
        text_BT = jnp.broadcast_to(memory_T[None], match_BT.shape)
        return self._in_one(match_BT, text_BT, jnp.full_like(context.lengths_B, self.remembered), context)

    def _in_one(self, match_BT: Array, text_BT: Array, end_B: Array, context: Context) -> _Stands:
        """In one text of each row, whose suffixes share the places where the longest of them end."""
        columns = text_BT.shape[1]
        latest_BT = match_BT * columns + jnp.arange(columns)[None]
        place_BX = jax.lax.top_k(latest_BT, min(self.places, columns))[1]
        match_BX = jnp.take_along_axis(match_BT, place_BX, axis=1)
        size_R = jnp.arange(1, self.depth)
        index_BXD = place_BX[:, :, None] + 1 + jnp.arange(self.length)[None, None]
        flat_BY = jnp.minimum(index_BXD, columns - 1).reshape(len(text_BT), -1)
        after_BXD = jnp.take_along_axis(text_BT, flat_BY, axis=1).reshape(index_BXD.shape)
        there_BXD = (index_BXD < end_B[:, None, None]) & (after_BXD >= 0)
        among_BRX = match_BX[:, None] >= size_R[None, :, None]
        return _Stands(
            among_BRX[:, None],
            jnp.sum(among_BRX, axis=2)[:, None],
            self._limits(size_R, context.lengths_B)[:, None],
            after_BXD[:, None],
            jnp.cumprod(there_BXD, axis=2).astype(bool)[:, None],
            place_BX[:, None],
        )

    def _in_store(self, store: Datastore, context: Context) -> _Stands:
        """Each suffix has places of its own."""
        sizes = tuple(range(1, self.corpus_longest + 1))
        first_BK, count_BK = store.spans(context.tokens_BS, context.lengths_B, sizes)
        nth_1X, size_K = jnp.arange(self.places)[None, None], jnp.asarray(sizes)
        few_BK1, count_BK1 = (count_BK <= self.places)[:, :, None], count_BK[:, :, None]
        # In floats, for a count times `places` may pass what an int32 holds.
        spread_BKX = (nth_1X * (count_BK1 / self.places)).astype(jnp.int32)
        at_BKX = first_BK[:, :, None] + jnp.where(few_BK1, nth_1X, spread_BKX)
        place_BKX = store.order_T[jnp.clip(at_BKX, 0, len(store.order_T) - 1)]
        after_BKXD = store.read(place_BKX + size_K[None, :, None], self.length)
        among_BKX = nth_1X < count_BK1
        return _Stands(
            among_BKX[:, :, None],
            jnp.sum(among_BKX, axis=2)[:, :, None],
            self._limits(size_K, context.lengths_B)[:, :, None],
            after_BKXD,
            jnp.cumprod(after_BKXD >= 0, axis=3).astype(bool),
            jnp.broadcast_to(nth_1X, among_BKX.shape),
        )

    def _limits(self, size_R: Array, lengths_B: Array) -> Array:
        """[B, R]: guesses after a suffix of each size; none after all of a row."""
        allowed_R = jnp.floor(size_R * jnp.float32(self.factor) + jnp.float32(self.offset) + 1e-6).astype(jnp.int32)
        allowed_R = jnp.clip(jnp.minimum(allowed_R, self.depth - size_R), 0, self.length)
        return jnp.where(size_R[None] < lengths_B[:, None], allowed_R[None], 0)

    def _best(self, stands: _Stands) -> tuple[Array, Array, Array]:
        """(guesses [B, N], how many there are, what they promise) of the suffix that promises most."""
        guesses_BPN, count_BP, promise_BP = self._paths(stands)
        last_1P = jnp.arange(promise_BP.shape[1])[None]
        most_BP = promise_BP == jnp.max(promise_BP, axis=1, keepdims=True)
        best_B1 = jnp.max(jnp.where(most_BP, last_1P, 0), axis=1, keepdims=True)  # sizes ascend: the longest
        guesses_BN = jnp.take_along_axis(guesses_BPN, best_B1[:, :, None], axis=1)[:, 0]
        count_B, promise_B = (jnp.take_along_axis(x_BP, best_B1, axis=1)[:, 0] for x_BP in (count_BP, promise_BP))
        return guesses_BN, count_B, promise_B

    def _paths(self, stands: _Stands) -> tuple[Array, Array, Array]:
        """([B, P, N] each pattern's most frequent path, [B, P] its length, [B, P] the sum of its products)."""
        highest = jnp.max(stands.rank_BGX) + 1

        def follow(at, column):
            among_BGRX, total_BGR, product_BGR, count_BGR, promise_BGR = at
            after_BGX, there_BGX, n = column
            same_BGXX = (
                (after_BGX[..., None] == after_BGX[..., None, :]) & there_BGX[..., None] & there_BGX[..., None, :]
            )
            often_BGRX = jnp.matmul(among_BGRX.astype(jnp.float32), same_BGXX.astype(jnp.float32)).astype(jnp.int32)
            often_BGRX = jnp.where(among_BGRX & there_BGX[:, :, None], often_BGRX, 0)
            most_BGR1 = jnp.max(often_BGRX, axis=-1, keepdims=True)
            rank_BGRX = jnp.where((often_BGRX == most_BGR1), stands.rank_BGX[:, :, None], highest)
            place_BGR1 = jnp.argmin(rank_BGRX, axis=-1)[..., None]
            token_BGR1 = jnp.take_along_axis(after_BGX[:, :, None], place_BGR1, axis=-1)
            product_BGR *= most_BGR1[..., 0].astype(jnp.float32) / jnp.maximum(total_BGR, 1).astype(jnp.float32)
            goes_BGR = (count_BGR == n) & (n < stands.limit_BGR) & (product_BGR >= self.threshold)
            goes_BGR &= most_BGR1[..., 0] > 0
            among_BGRX &= (after_BGX[:, :, None] == token_BGR1) & there_BGX[:, :, None]
            promise_BGR += jnp.where(goes_BGR, product_BGR, 0.0)
            return (among_BGRX, most_BGR1[..., 0], product_BGR, count_BGR + goes_BGR, promise_BGR), token_BGR1[..., 0]

        zeros_BGR = jnp.zeros(stands.total_BGR.shape, jnp.int32)
        begun = (stands.among_BGRX, stands.total_BGR, zeros_BGR + 1.0, zeros_BGR, zeros_BGR + 0.0)
        columns = jnp.moveaxis(stands.after_BGXD, 3, 0), jnp.moveaxis(stands.there_BGXD, 3, 0), jnp.arange(self.length)
        (_, _, _, count_BGR, promise_BGR), token_NBGR = jax.lax.scan(follow, begun, columns)
        flat = (len(count_BGR), -1)
        guesses_BPN = jnp.moveaxis(token_NBGR, 0, 3).reshape(*flat, self.length)
        return guesses_BPN, count_BGR.reshape(flat), promise_BGR.reshape(flat)
