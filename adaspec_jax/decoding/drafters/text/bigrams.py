"""Guesses by statistics alone: copied from the row's own text, and by a table of what follows each token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.text.copying import LongestMatch
from adaspec_jax.decoding.drafters.text.matching import chain, check_counts
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Proposal


@pytree("length", "longest", "widths")
class MaxGram(InARow, Stateless):
    """`length` guesses: what followed the longest suffix where it first stood before, then what the table says follows.

    "MaG", the statistical model below all others in CS Drafting (arXiv 2312.11462; 10 guesses and their order from its
    code, whose table is of bigrams of Wikipedia). Their code looks for a match once more where the first one gives less
    than `length`, its guesses taken as text; here the table goes on [ours]. Ours too: a suffix counts as `longest`
    tokens where it is longer. The guesses end at a token that the table does not know.
    """

    followers_V: Array | None = None  # int32: see `likeliest_next`; None: no table
    length: int = 10
    longest: int = 64
    widths: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_counts(length=self.length, longest=self.longest)

    def propose(self, key: Array, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        copied, _ = LongestMatch(self.length, self.length, self.longest).propose(key, state, context)
        if self.followers_V is None:
            return copied, state

        def guess(before, place):
            (token_B, known_B), (copied_B, there_B) = before, place
            token_B = jnp.where(there_B, copied_B, self.followers_V[token_B])
            known_B &= token_B >= 0
            token_B = jnp.maximum(token_B, 0)
            return (token_B, known_B), (token_B, known_B)

        last_B = tokens_from(context.tokens_BS, context.lengths_B - 1, 1)[:, 0]
        places = copied.tokens_BN.T, copied.valid_BN.T
        _, (tokens_NB, known_NB) = jax.lax.scan(guess, (last_B, jnp.ones(last_B.shape, bool)), places)
        return chain(tokens_NB.T, known_NB.T), state


def likeliest_next(tokens_T: Array | np.ndarray, vocab_size: int) -> Array:
    """[V] int32: the token that most often follows each in texts, the lowest of several; -1 where none does.

    Negative numbers stand between texts; what is no token of the vocabulary follows nothing and is followed by nothing.
    """
    tokens_T = np.asarray(tokens_T, np.int64)
    inside_T = (tokens_T >= 0) & (tokens_T < vocab_size)
    both_T = inside_T[:-1] & inside_T[1:]
    pairs, counts = np.unique(tokens_T[:-1][both_T] * vocab_size + tokens_T[1:][both_T], return_counts=True)
    rising = pairs[np.lexsort((-pairs, counts))]  # of a token's pairs the commonest comes last, and is what stays
    table_V = np.full(vocab_size, -1, np.int32)
    table_V[rising // vocab_size] = rising % vocab_size
    return jnp.asarray(table_V)
