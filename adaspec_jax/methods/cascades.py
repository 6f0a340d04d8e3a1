"""Methods of several draft models, each of which speeds up the next larger one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from adaspec_jax.decoding import Cascade, ChainDrafter, Fuzzy, Relay, Review, match_sample, rejection_sample
from adaspec_jax.decoding.drafters.text.bigrams import MaxGram, likeliest_next
from adaspec_jax.decoding.types import Accept, Drafter, Model
from adaspec_jax.methods.method import A_DRAFT, Given, Method, Need
from adaspec_jax.methods.taught import vocabulary

TWO_DRAFTS = Need("two drafts (--draft PATH twice)", lambda given: given.between is not None)


def _pyramid(given: Given, *, draft_length: int, length: int, accept: Accept) -> Cascade:
    """The smallest draft guesses for the next, and the two of them for the target."""
    if draft_length < 1:
        raise ValueError(f"draft_length is {draft_length}; it must be at least 1")
    assert given.between is not None, "it needs two drafts"
    return Cascade(ChainDrafter(given.draft, draft_length), given.between, length, accept)


def _fuzzy_pyramid(given: Given, *, threshold_q: float, divergence_q: str, **lengths: int) -> Cascade:
    return _pyramid(given, **lengths, accept=Fuzzy(threshold_q, divergence_q))


def _cs_drafting(given: Given, *, k_matrix: tuple[int, ...], k_of_two: tuple[int, ...], lenience: float) -> Drafter:
    models = [model for model in (given.between, given.draft) if model is not None]
    rows = rows_of(k_matrix if len(models) == 1 else k_of_two, len(models))
    store = given.datastore
    table_V = None if store is None else likeliest_next(store.tokens_T, vocabulary(given.target))
    accept = rejection_sample if lenience == 1 else Review(lenience)
    return in_turn(models, rows, partial(MaxGram, table_V), accept)


def rows_of(numbers: Sequence[int], models: int) -> list[tuple[int, ...]]:
    """A triangular matrix from its numbers, row by row, those below its diagonal left out; ValueError for too few."""
    sizes = range(models + 1, 0, -1)
    if len(numbers) != sum(sizes) or min(numbers) < 0:
        raise ValueError(f"{models} drafts and copies take {sum(sizes)} counts from 0 on, not {list(numbers)}")
    left = iter(numbers)
    return [tuple(next(left) for _ in range(size)) for size in sizes]


def in_turn(
    models: Sequence[Model], rows: Sequence[Sequence[int]], copying: Callable[[int], Drafter], accept: Accept
) -> Drafter:
    """What drafts for the model above `models`, the largest first: `rows[0]` says how many guesses are whose.

    The last are copied. Every model's own guesses are made in the same way, by the models after it and their rows, and
    reviewed under `accept`. ValueError for a row without guesses.
    """
    *counts, copied = rows[0]
    parts: list[tuple[Drafter, int]] = [
        (Cascade(in_turn(models[n:], rows[n:], copying, accept), model, count, accept), count)
        for n, (model, count) in enumerate(zip(models, counts, strict=True), 1)
        if count
    ]
    if copied:
        parts.append((copying(copied), copied))
    if not parts:
        raise ValueError("a row of the counts is all 0: nothing is guessed there")
    # Copies may find nothing: then the guesses before them are verified alone.
    return parts[0][0] if len(parts) == 1 else Relay.of(*parts, widths=(sum(rows[0]) - copied,) if copied else ())


# Three models, of which the middle one has its say in both comparisons. From notes on the paper, whose code is not out:
# the thresholds and 25 are its best point. Ours are the divergence, which is not stated (that of FSD, on which it
# builds, and to whose scale they fit), and 10, between a half and a third of 25.
_LENGTHS = {"draft_length": 10, "length": 25}
_pyramidsd = partial(
    Method,
    accept=Fuzzy(0.5, "fsd_js"),
    lossless=False,
    paper="arXiv 2510.12966",
    needs=(TWO_DRAFTS,),
    rule_knobs={"threshold_t": "threshold", "divergence_t": "divergence"},
)
PYRAMIDSD_F = _pyramidsd(
    name="pyramidsd_f", drafter=_fuzzy_pyramid, knobs={"threshold_q": 0.4, "divergence_q": "fsd_js", **_LENGTHS}
)
PYRAMIDSD_A = _pyramidsd(name="pyramidsd_a", drafter=partial(_pyramid, accept=match_sample), knobs=_LENGTHS)
# The counts of their README for one draft, and of their script for two, which has a lenience of 2. What a review gives
# beyond its count is dropped; theirs goes to the target too.
CS_DRAFTING = Method(
    name="cs_drafting",
    drafter=_cs_drafting,
    paper="arXiv 2312.11462",
    needs=(A_DRAFT,),
    knobs={"k_matrix": (5, 10, 10), "k_of_two": (5, 14, 10, 1, 10, 10), "lenience": 1.0},
)
CASCADES = (PYRAMIDSD_F, PYRAMIDSD_A, CS_DRAFTING)
