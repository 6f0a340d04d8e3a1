"""Methods of one independent draft that choose, round by round, how many guesses it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from adaspec_jax.decoding import Analytical, ChainDrafter, ConfidentEnough, FiniteState, Survival
from adaspec_jax.decoding.drafters.models.copy_first import CopyFirst
from adaspec_jax.decoding.drafters.text.copying import PromptLookup
from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.decoding.stopping import Likeliest, Stop
from adaspec_jax.methods.independent import halves
from adaspec_jax.methods.method import A_DRAFT, COSTS, Given, Method

ON_THE_FLY_PAPER = "Liu, Park and Shen, ACL 2025"


def _chain(given: Given, stop: Stop, longest: int) -> ChainDrafter:
    """At most so many guesses, and besides that a plain step and two smaller widths for verifications."""
    return ChainDrafter(given.draft, longest, stop, widths=_widths(longest))


def _widths(longest: int) -> tuple[int, ...]:
    return (0, *halves(longest))


def _finite_state(given: Given, *, first: int | None, up: int, down: int, least: int, longest: int) -> ChainDrafter:
    first = min(given.draft_length, longest) if first is None else first
    if not 1 <= least <= first <= longest:
        raise ValueError(f"least is {least}, first {first} and longest {longest}; they must rise, from 1 on")
    if up < 0 or down < 0:
        raise ValueError(f"up is {up} and down {down}; both are numbers of guesses, 0 or more")
    return _chain(given, FiniteState(first, up, down, least, longest), longest)


def _copy_first(given: Given, *, ngram: int, copies: int, **finite_state: Any) -> CopyFirst:
    return CopyFirst(PromptLookup(ngram, copies), _finite_state(given, **finite_state))


def _assumed(given: Given, *, cost: float, **knobs: Any) -> ChainDrafter:
    """With the paper's costs: a draft step is `cost` target steps, and a verification one, whatever its width."""
    if cost <= 0:
        raise ValueError(f"cost is {cost}; a draft step costs more than nothing")
    return _analytical(given, lambda longest: {1: RoundCosts(cost, cost, {0: 1.0, longest: 1.0})}, **knobs)


def _measured(given: Given, **knobs: Any) -> ChainDrafter:
    costs = given.costs
    assert costs is not None, "it needs a target whose rounds can be timed"
    return _analytical(given, lambda longest: costs(given, ChainDrafter(given.draft, longest), longest), **knobs)


def _analytical(
    given: Given,
    costs: Callable[[int], Mapping[int, RoundCosts]],
    *,
    longest: int,
    window: int,
    probe: int,
    prior: float,
) -> ChainDrafter:
    for name, count in (("longest", longest), ("window", window), ("probe", probe)):
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1")
    if not 0 <= prior <= 1:
        raise ValueError(f"prior is {prior}; it must be between 0 and 1")
    by_size = costs(longest)
    widths = (*_widths(longest), longest)
    costs_M = {n: jnp.array([each.of(m, widths) for m in range(longest + 1)]) for n, each in by_size.items()}
    return _chain(given, Analytical(costs_M, window, probe, prior), longest)


def _specdec_pp(given: Given, *, threshold: float, least: int, longest: int) -> ChainDrafter:
    if not 1 <= least <= longest:
        raise ValueError(f"least is {least} and longest {longest}; they must rise, from 1 on")
    head = given.stops.get(next(iter(given.drafts)), Likeliest())
    return _chain(given, Survival(head, _share(threshold), least, longest), longest)


def _confident(given: Given, *, threshold: float, longest: int) -> ChainDrafter:
    if longest < 1:
        raise ValueError(f"longest is {longest}; it must be at least 1")
    return _chain(given, ConfidentEnough(_share(threshold), longest, step=0.0, inertia=1.0), longest)


def _share(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be between 0 and 1")
    return threshold


_ANALYTICAL = {"longest": 16, "window": 16, "probe": 16, "prior": 0.7}  # all ours
_STEPS = {"first": None, "up": 1, "down": 1, "least": 1, "longest": 16}  # ours; first None: as given beside the method
_method = partial(Method, needs=(A_DRAFT,))

# What the paper's first controller does, by its formula; a draft step of a tenth of a target step is ours.
ON_THE_FLY = _method(name="on_the_fly", drafter=_assumed, paper=ON_THE_FLY_PAPER, knobs={**_ANALYTICAL, "cost": 0.1})
# The same with every part of a round as it is measured here, verifications of every width among them.
AUTO = _method(name="auto", drafter=_measured, paper=ON_THE_FLY_PAPER, needs=(A_DRAFT, COSTS), knobs=_ANALYTICAL)
FINITE_STATE = _method(name="finite_state", drafter=_finite_state, paper=ON_THE_FLY_PAPER, knobs=_STEPS)
COPY_FIRST = _method(
    name="copy_first", drafter=_copy_first, paper=ON_THE_FLY_PAPER, knobs={"ngram": 3, "copies": 10, **_STEPS}
)
# transformers' num_assistant_tokens_schedule "heuristic", which begins with 20 guesses and has no longest; 32 is ours.
HEURISTIC = _method(
    name="heuristic",
    drafter=_finite_state,
    paper="transformers",
    knobs={"first": 20, "up": 2, "down": 1, "least": 1, "longest": 32},
)
# Where nobody trained a stop head on the draft, what that gives its likeliest token stands for the estimate.
SPECDEC_PP = _method(
    name="specdec_pp",
    drafter=_specdec_pp,
    paper="arXiv 2405.19715",
    knobs={"threshold": 0.3, "least": 2, "longest": 20},
)
# What transformers begins with: num_assistant_tokens 20, assistant_confidence_threshold 0.4, after which the weak guess
# stays. It asks for the probability of the token drawn, and moves the threshold where scikit-learn is installed.
CONFIDENT = _method(name="confident", drafter=_confident, paper="transformers", knobs={"threshold": 0.4, "longest": 20})
LENGTHS = (ON_THE_FLY, AUTO, FINITE_STATE, COPY_FIRST, HEURISTIC, SPECDEC_PP, CONFIDENT)
