"""Guesses copied from a row's own text, from after an earlier stand of its last tokens."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.stateless import Stateless
from adaspec_jax.decoding.drafters.text.matching import chain, check_counts, copied, first_place, match_lengths
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context


@pytree("ngram", "length", "widths")
class PromptLookup(InARow, Stateless):
    """The `length` tokens after the first stand of the last `ngram` tokens, of fewer where those stand nowhere else.

    A stand counts where all `length` tokens after it are there, and it ends `ngram` + 1 tokens before the text does.
    Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; sizes and the choice of the
    first stand from its code).
    """

    ngram: int = 3
    length: int = 10
    widths: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_counts(ngram=self.ngram, length=self.length)

    def propose(self, key, state, context: Context):
        tokens_BS, end_B1 = context.tokens_BS, context.lengths_B[:, None]
        place_1S = jnp.arange(tokens_BS.shape[1])[None]
        match_BS = match_lengths(tokens_BS, context.lengths_B, self.ngram)
        size_BS = jnp.where(place_1S + self.length < end_B1, jnp.minimum(match_BS, end_B1 - 2 - place_1S), 0)
        size_B = jnp.max(size_BS, axis=1)
        at_B = first_place(size_BS == size_B[:, None])
        guesses_BN, there_BN = copied(tokens_BS, at_B, context.lengths_B, self.length)
        return chain(guesses_BN, there_BN & (size_B > 0)[:, None]), state


@pytree("longest", "shortest", "length", "widths")
class ReferenceCopy(InARow):
    """What follows the last `longest` to `shortest` tokens of the answer where they first stand in the prompt.

    LLMA (Yang et al. 2023, arXiv 2304.04487; sizes from its code: an n-gram of 5 down to 1, blocks of 20 tokens of
    which the first is the row's last). Its reference documents are part of the prompt; here the whole prompt is the
    reference [ours]. The longest n-gram that stands there decides, and its first stand, even at the prompt's very end.
    """

    longest: int = 5
    shortest: int = 1
    length: int = 19
    widths: tuple[int, ...] = (0,)

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        check_counts(longest=self.longest, shortest=self.shortest, length=self.length)
        if self.shortest > self.longest:
            raise ValueError(f"shortest is {self.shortest} and longest {self.longest}")

    def init(self, prompt: Context, slots: int) -> Array:
        return prompt.lengths_B

    def extend(self, state: Array, prompt: Context, kept_B: Array, width: int) -> Array:
        return prompt.lengths_B

    def propose(self, key, prompt_lengths_B, context: Context):
        tokens_BS = context.tokens_BS
        in_prompt_BS = jnp.arange(tokens_BS.shape[1])[None] < prompt_lengths_B[:, None]
        match_BS = match_lengths(tokens_BS, context.lengths_B, self.longest)
        answer_B1 = (context.lengths_B - prompt_lengths_B)[:, None]
        size_BS = jnp.where(in_prompt_BS, jnp.minimum(match_BS, answer_B1), 0)
        size_B = jnp.max(size_BS, axis=1)
        at_B = first_place(size_BS == size_B[:, None])
        guesses_BN, there_BN = copied(tokens_BS, at_B, prompt_lengths_B, self.length)
        return chain(guesses_BN, there_BN & (size_B >= self.shortest)[:, None]), prompt_lengths_B


@pytree("length", "per_match", "longest", "widths")
class LongestMatch(InARow, Stateless):
    """What followed the first stand of the longest suffix that stood before: `per_match` guesses for each token of it.

    SAM-Decoding (Hu et al. 2024, arXiv 2411.10666) without a fixed text and without another drafter for short matches;
    40 tokens a round of which one is the row's last, and 4 a token, from its code, which copies nothing that ends with
    the row's last token. Ours: a suffix counts as `longest` tokens where it is longer.
    """

    length: int = 39
    per_match: int = 4
    longest: int = 64
    widths: tuple[int, ...] = (0, 8)

    def __post_init__(self) -> None:
        check_counts(length=self.length, per_match=self.per_match, longest=self.longest)

    def propose(self, key, state, context: Context):
        match_BS = match_lengths(context.tokens_BS, context.lengths_B, self.longest)
        size_B = jnp.max(match_BS, axis=1)
        at_B = first_place(match_BS == size_B[:, None])
        guesses_BN, there_BN = copied(context.tokens_BS, at_B, context.lengths_B - 1, self.length)
        allowed_BN = jnp.arange(self.length)[None] < self.per_match * size_B[:, None]
        return chain(guesses_BN, there_BN & allowed_BN), state
