"""Guesses by n-grams: counted in a row's own text, or known to the target's weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.text.matching import after_guess, chain, check_counts, match_lengths, merged
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Model


@pytree("levels", "length", "widths")
class CountedNgrams(InARow, Stateless):
    """`length` guesses in a row, each the token that most often followed the last `levels` - 1 tokens in the text.

    Where those never stood there, the last `levels` - 2 decide, down to one; where that never did, the guesses end. Of
    equal counts the token that came last to follow them. ANPD (Ou et al. 2024, arXiv 2404.08698; levels 2 to 3, the
    order of fallbacks and ties from its code, which tries a dummy token where nothing is found, and counts a prompt
    twice; the number of guesses is ours). Counts are taken of the committed text in every round, none of the guesses.
    """

    levels: int = 3
    length: int = 8
    widths: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_counts(length=self.length)
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, not {self.levels}")

    def propose(self, key, state, context: Context):
        tokens_BS, longest = context.tokens_BS, self.levels - 1
        next_BS = jnp.roll(tokens_BS, -1, axis=1)
        name_BS = _names(next_BS)
        before_BS = jnp.arange(tokens_BS.shape[1])[None] < context.lengths_B[:, None] - 1

        def guess(match_BS, _):
            level_B1 = jnp.max(match_BS, axis=1, keepdims=True)
            place_B1 = _most_counted((match_BS == level_B1) & before_BS, name_BS)
            guess_B1 = jnp.take_along_axis(next_BS, place_B1, axis=1)
            found_B = level_B1[:, 0] > 0
            match_BS = jnp.where(found_B[:, None], after_guess(match_BS, tokens_BS, guess_B1[:, 0], longest), 0)
            return match_BS * before_BS, (guess_B1[:, 0], found_B)

        match_BS = match_lengths(tokens_BS, context.lengths_B, longest)
        _, (guesses_NB, found_NB) = jax.lax.scan(guess, match_BS, length=self.length)
        return chain(guesses_NB.T, found_NB.T), state


@pytree("rows", "length", "ngram")
class NGrammys(Stateless):
    """`rows` chains of `length` guesses: what followed in the text, then what the target's weights alone say follows.

    At most half the rows continue earlier stands of the last `ngram` tokens, the latest first; the others begin with
    the tokens that `followers_VK` has for the last token, likeliest first, and go on with the likeliest alone. The
    longest row that the target agrees with stays: rows are verified as one tree. N-Grammys (Stewart et al. 2024, arXiv
    2411.03786; the recipe from memory, all sizes and the half ours; nothing was checked against the paper).
    """

    followers_VK: Array  # int32; see `likeliest_followers`
    rows: int = 10
    length: int = 10
    ngram: int = 1

    def __post_init__(self) -> None:
        check_counts(rows=self.rows, length=self.length, ngram=self.ngram)

    @property
    def num_nodes(self) -> int:
        return self.rows * self.length

    @property
    def depth(self) -> int:
        return self.length

    def propose(self, key, state, context: Context):
        copied_BRN, there_BRN = self._from_text(context)
        known_BKN = self._from_weights(context)
        return merged(*_filled(copied_BRN, there_BRN, known_BKN, self.rows)), state

    def _from_text(self, context: Context) -> tuple[Array, Array]:
        """([B, rows / 2, N] continuations, bool: committed text)."""
        tokens_BS, rows = context.tokens_BS, self.rows // 2
        match_BS = match_lengths(tokens_BS, context.lengths_B, self.ngram)
        place_1S = jnp.arange(tokens_BS.shape[1])[None]
        latest_BR = jax.lax.top_k(jnp.where(match_BS == self.ngram, place_1S, -1), rows)[0]
        index_BRN = latest_BR[:, :, None] + 1 + jnp.arange(self.length)[None, None]
        flat_BX = jnp.minimum(index_BRN, tokens_BS.shape[1] - 1).reshape(len(tokens_BS), -1)
        copied_BRN = jnp.take_along_axis(tokens_BS, flat_BX, axis=1).reshape(index_BRN.shape)
        return copied_BRN, (index_BRN < context.lengths_B[:, None, None]) & (latest_BR >= 0)[:, :, None]

    def _from_weights(self, context: Context) -> Array:
        """[B, K, N]: each follower of the last token, and the chain of likeliest ones after it."""
        last_B = tokens_from(context.tokens_BS, context.lengths_B - 1, 1)[:, 0]

        def follow(token_BK, _):
            return self.followers_VK[token_BK, 0], token_BK

        _, rows_NBK = jax.lax.scan(follow, self.followers_VK[last_B, : self.rows], length=self.length)
        return jnp.moveaxis(rows_NBK, 0, 2)


def likeliest_followers(target: Model, count: int, *, opening: tuple[int, ...] = ()) -> Array:
    """[V, count] int32: the target's likeliest tokens after `opening` and each single token; a pass over all of V.

    In slices of 256 tokens, so that the logits of all never exist at once.
    """
    vocab_size = jax.eval_shape(lambda target: target(jnp.zeros((1, 1), jnp.int32))[0], target).shape[-1]
    count, step = min(count, vocab_size), 256

    @jax.jit
    def likeliest(target: Any, tokens_B: Array) -> Array:
        opening_BT = jnp.broadcast_to(jnp.asarray(opening, jnp.int32)[None], (step, len(opening)))
        hidden_BTD, _ = target.features(jnp.concatenate([opening_BT, tokens_B[:, None]], axis=1))
        return jax.lax.top_k(target.unembed(hidden_BTD[:, -1]), count)[1].astype(jnp.int32)

    starts = range(0, vocab_size, step)
    slices = [likeliest(target, jnp.minimum(jnp.arange(at, at + step), vocab_size - 1)) for at in starts]
    return jnp.concatenate(slices)[:vocab_size]


def _names(tokens_BS: Array) -> Array:
    """[B, S]: for each token the first place of the row where it stands: a name for it that is below S."""
    order_BS = jnp.argsort(tokens_BS, axis=1, stable=True)
    sorted_BS = jnp.take_along_axis(tokens_BS, order_BS, axis=1)
    begins_BS = jnp.pad(sorted_BS[:, 1:] != sorted_BS[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    begin_BS = jax.lax.cummax(jnp.where(begins_BS, jnp.arange(tokens_BS.shape[1])[None], 0), axis=1)
    row_B1 = jnp.arange(len(tokens_BS))[:, None]
    return jnp.zeros_like(order_BS).at[row_B1, order_BS].set(jnp.take_along_axis(order_BS, begin_BS, axis=1))


def _most_counted(hits_BS: Array, name_BS: Array) -> Array:
    """[B, 1]: of the hits, the first place of the name that most have; of equal counts, the latest such place."""
    row_B1, slots = jnp.arange(len(hits_BS))[:, None], hits_BS.shape[1]
    place_1S = jnp.arange(slots)[None]
    count_BS = jnp.zeros(hits_BS.shape, jnp.int32).at[row_B1, name_BS].add(hits_BS)
    first_BS = jnp.full(hits_BS.shape, slots).at[row_B1, name_BS].min(jnp.where(hits_BS, place_1S, slots))
    count_BS = jnp.where(hits_BS, jnp.take_along_axis(count_BS, name_BS, axis=1), 0)
    most_BS = hits_BS & (count_BS == jnp.max(count_BS, axis=1, keepdims=True))
    first_BS = jnp.take_along_axis(first_BS, name_BS, axis=1)
    return jnp.max(jnp.where(most_BS & (first_BS == place_1S), place_1S, 0), axis=1, keepdims=True)


def _filled(copied_BRN: Array, there_BRN: Array, known_BKN: Array, rows: int) -> tuple[Array, Array]:
    """The copied rows, which stand first, and known ones in the places of those that are not there."""
    batch, _, length = known_BKN.shape
    found_B1 = jnp.sum(there_BRN[:, :, 0], axis=1, dtype=jnp.int32)[:, None]
    row_1R = jnp.arange(rows)[None]
    rank_BR = row_1R - found_B1  # of a known row
    rank_BR1 = jnp.clip(rank_BR, 0, known_BKN.shape[1] - 1)[:, :, None]
    known_BRN = jnp.take_along_axis(known_BKN, rank_BR1, axis=1)
    missing = ((0, 0), (0, rows - copied_BRN.shape[1]), (0, 0))
    copies_BR1 = (rank_BR < 0)[:, :, None]
    tokens_BRN = jnp.where(copies_BR1, jnp.pad(copied_BRN, missing), known_BRN)
    in_table_BR1 = (rank_BR < known_BKN.shape[1])[:, :, None]
    return tokens_BRN, jnp.where(copies_BR1, jnp.pad(there_BRN, missing), in_table_BR1)
