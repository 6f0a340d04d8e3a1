"""Methods whose guesses are copied from text: they need no second model."""

from __future__ import annotations

from adaspec_jax.decoding.drafters.text.copying import PromptLookup, ReferenceCopy
from adaspec_jax.methods.method import Given, Method


def _prompt_lookup(given: Given, *, ngram: int, length: int) -> PromptLookup:
    return PromptLookup(ngram, length)


def _llma(given: Given, *, longest: int, shortest: int, length: int) -> ReferenceCopy:
    return ReferenceCopy(longest, shortest, length)


PROMPT_LOOKUP = Method(
    name="prompt_lookup",
    drafter=_prompt_lookup,
    knobs={"ngram": 3, "length": 10},
    paper="Saxena 2023",
)
LLMA = Method(
    name="llma",
    drafter=_llma,
    knobs={"longest": 5, "shortest": 1, "length": 19},
    paper="arXiv 2304.04487",
)
