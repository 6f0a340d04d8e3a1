"""Where a row's last tokens stand in its own text before, and what followed them there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.types import Proposal


def match_lengths(tokens_BS: Array, lengths_B: Array, longest: int) -> Array:
    """[B, S]: how many of a row's last tokens, at most `longest`, also end at each place before the last.

    Zero from the last token on, so that what follows a match is committed text.
    """
    before_BS = jnp.arange(tokens_BS.shape[1])[None] < lengths_B[:, None] - 1
    return _matches(tokens_BS, before_BS, tokens_BS, lengths_B, longest)


def match_lengths_in(text_T: Array, tokens_BS: Array, lengths_B: Array, longest: int) -> Array:
    """[B, T]: how many of a row's last tokens, at most `longest`, end at each place of a text that rows share."""
    text_BT = jnp.broadcast_to(text_T[None], (len(tokens_BS), len(text_T)))
    return _matches(text_BT, jnp.ones(text_BT.shape, bool), tokens_BS, lengths_B, longest)


def _matches(text_BT: Array, among_BT: Array, tokens_BS: Array, lengths_B: Array, longest: int) -> Array:
    place_1T = jnp.arange(text_BT.shape[1])[None]

    def look_back(carry, back):
        shifted_BT, still_BT, length_BT = carry
        token_B1 = jnp.take_along_axis(tokens_BS, jnp.maximum(lengths_B - 1 - back, 0)[:, None], axis=1)
        still_BT &= (shifted_BT == token_B1) & (place_1T >= back) & (back < lengths_B)[:, None]
        return (jnp.roll(shifted_BT, 1, axis=1), still_BT, length_BT + still_BT), None

    begun = (text_BT, among_BT, jnp.zeros(text_BT.shape, jnp.int32))
    return jax.lax.scan(look_back, begun, jnp.arange(longest))[0][2]


def after_guess(match_BS: Array, tokens_BS: Array, guess_B: Array, longest: int) -> Array:
    """`match_lengths` if the guess were a row's last token: only committed text is matched."""
    longer_BS = jnp.pad(match_BS[:, :-1], ((0, 0), (1, 0))) + 1
    return jnp.where(tokens_BS == guess_B[:, None], jnp.minimum(longer_BS, longest), 0)


def copied(tokens_BS: Array, after_B: Array, end_B: Array, length: int) -> tuple[Array, Array]:
    """([B, N] the tokens from the place after `after_b`, [B, N] whether they lie before `end_b`)."""
    start_B = after_B + 1
    return tokens_from(tokens_BS, start_B, length), start_B[:, None] + jnp.arange(length)[None] < end_B[:, None]


def first_place(chosen_BS: Array) -> Array:
    """The first True of each row; 0 where there is none."""
    return jnp.argmax(chosen_BS, axis=1).astype(jnp.int32)


def chain(guesses_BN: Array, valid_BN: Array) -> Proposal:
    """Guesses in a row, as far as they are valid without a gap, and the width that holds every row's."""
    valid_BN = jnp.cumprod(valid_BN, axis=1).astype(bool)
    return Proposal(guesses_BN, valid_BN=valid_BN, width=jnp.max(jnp.sum(valid_BN, axis=1)))


def merged(rows_BRN: Array, valid_BRN: Array) -> Proposal:
    """Rows of guesses as one tree in which equal beginnings are one path, so that the longest right row is found.

    Node n of row r is r * N + n; it is invalid where an earlier row begins alike so far. Rows are valid without gaps.
    """
    batch, rows, length = rows_BRN.shape
    alike_BRRN = jnp.cumprod(rows_BRN[:, :, None] == rows_BRN[:, None], axis=-1).astype(bool) & valid_BRN[:, None]
    first_BRN = jnp.argmax(alike_BRRN, axis=2).astype(jnp.int32)
    own_BRN = valid_BRN & (first_BRN == jnp.arange(rows)[None, :, None])
    above_BRN = first_BRN[:, :, :-1] * length + jnp.arange(length - 1, dtype=jnp.int32)[None, None]
    parents_BRN = jnp.pad(above_BRN, ((0, 0), (0, 0), (1, 0)), constant_values=-1)
    flat = (batch, rows * length)
    return Proposal(rows_BRN.reshape(flat), parents_BRN.reshape(flat), valid_BN=own_BRN.reshape(flat))


def check_counts(**counts: int) -> None:
    """ValueError for one below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")
