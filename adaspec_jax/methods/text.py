"""Methods whose guesses are copied from text: they need no second model."""

from __future__ import annotations

from typing import Any

from adaspec_jax import data
from adaspec_jax.decoding.drafters.text.copying import LongestMatch, PromptLookup, ReferenceCopy
from adaspec_jax.decoding.drafters.text.datastore import DatastoreTree
from adaspec_jax.decoding.drafters.text.ngrams import CountedNgrams, NGrammys, likeliest_followers
from adaspec_jax.decoding.drafters.text.suffixes import SuffixPath
from adaspec_jax.methods.method import A_DATASTORE, Given, Method, Need


def _prompt_lookup(given: Given, *, ngram: int, length: int) -> PromptLookup:
    return PromptLookup(ngram, length)


def _llma(given: Given, *, longest: int, shortest: int, length: int) -> ReferenceCopy:
    return ReferenceCopy(longest, shortest, length)


def _anpd(given: Given, *, levels: int, length: int) -> CountedNgrams:
    return CountedNgrams(levels, length)


def _n_grammys(given: Given, *, rows: int, length: int, ngram: int) -> NGrammys:
    unread: Any = None
    NGrammys(unread, rows, length, ngram)  # numbers that cannot be are refused before the pass over the vocabulary
    opening = () if given.tokenizer is None else tuple(data.opening(given.tokenizer))
    return NGrammys(likeliest_followers(given.target, rows, opening=opening), rows, length, ngram)


def _rest(given: Given, **knobs: int) -> DatastoreTree:
    return DatastoreTree(given.datastore, **knobs)


def _suffix(given: Given, **knobs: Any) -> SuffixPath:
    return SuffixPath(given.datastore, **knobs)


def _sam(given: Given, *, length: int, per_match: int) -> LongestMatch:
    return LongestMatch(length, per_match)


WEIGHTS = Need("a target that can be asked what follows any token", lambda given: hasattr(given.target, "features"))
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
ANPD = Method(
    name="anpd",
    drafter=_anpd,
    knobs={"levels": 3, "length": 8},
    paper="arXiv 2404.08698",
)
N_GRAMMYS = Method(
    name="n_grammys",
    drafter=_n_grammys,
    knobs={"rows": 10, "length": 10, "ngram": 1},
    paper="arXiv 2411.03786",
    needs=(WEIGHTS,),
)
REST = Method(
    name="rest",
    drafter=_rest,
    knobs={"longest": 16, "shortest": 2, "matches": 5000, "length": 10, "choices": 64},
    paper="arXiv 2311.08252",
    needs=(A_DATASTORE,),
)
SUFFIX = Method(  # looks into a datastore too where one is given
    name="suffix",
    drafter=_suffix,
    knobs={
        "length": 32,
        "depth": 64,
        "factor": 1.0,
        "offset": 0.0,
        "threshold": 0.1,
        "places": 64,
        "corpus_longest": 16,
        "remembered": 4096,
    },
    paper="arXiv 2411.04975",
)
SAM = Method(
    name="sam",
    drafter=_sam,
    knobs={"length": 39, "per_match": 4},
    paper="arXiv 2411.10666",
)
TEXT = (PROMPT_LOOKUP, LLMA, ANPD, N_GRAMMYS, REST, SUFFIX, SAM)
