"""The formula for drafting during verification equals a simulation of two units, event by event."""

import itertools
import math

import pytest

from adaspec_jax.decoding.speedup import speedup
from adaspec_jax.planning.overlap import overlapped_speedup


def ends_of_rounds(outcomes, gamma, c, v, draft_slowdown, verify_slowdown, *, bonus_counts=True):
    """When each round's verification ends; an outcome says of gamma guesses and of that of the added token: right?

    Two units with work left each, advanced from event to event.
    """
    now, ends, ready, step = 0.0, [], 0, c  # guesses that are made, and what is left of the next
    for right in outcomes:
        while ready < gamma:
            now, ready, step = now + step, ready + 1, c
        judging, ready = v, 0
        while judging > 1e-12:
            drafting = ready < gamma + 1
            slow, late = (verify_slowdown, draft_slowdown) if drafting else (1.0, math.inf)
            passed = min(judging * slow, step * late if drafting else math.inf)
            now, judging = now + passed, judging - passed / slow
            step -= passed / late if drafting else 0.0
            if drafting and step < 1e-12:
                ready, step = ready + 1, c
        ends.append(now)
        added = ready > 0 and (right[gamma] or not bonus_counts)
        ready, step = (ready - 1, step) if all(right[:gamma]) and added else (0, c)
    return ends


def by_enumeration(alpha, gamma, *costs, **how):
    """Expected tokens over expected time of the round after any first round."""
    tokens = time = 0.0
    for right in itertools.product((True, False), repeat=gamma + 1):
        weight = math.prod(alpha if each else 1 - alpha for each in right)
        first, second = ends_of_rounds([right, right], gamma, *costs, **how)
        accepted = next((n for n, each in enumerate(right[:gamma]) if not each), gamma)
        tokens, time = tokens + weight * (accepted + 1), time + weight * (second - first)
    return tokens / time


# (gamma, draft step, verification): drafting ahead ends early, just in time, late, and within its first guess
COSTS = [(3, 0.05, 1.0), (3, 0.25, 1.0), (4, 0.4, 1.3), (2, 1.5, 1.0), (1, 0.5, 1.0)]


@pytest.mark.parametrize("slowdowns", [(1.0, 1.0), (1.4, 1.2), (2.0, 2.0), (1.0, 1.5)])
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.95, 1.0])
def test_the_formula_equals_the_simulation(alpha, costs, slowdowns):
    gamma, c, v = costs
    found = overlapped_speedup(alpha, gamma, c, v, draft_slowdown=slowdowns[0], verify_slowdown=slowdowns[1])
    assert found == pytest.approx(by_enumeration(alpha, gamma, c, v, *slowdowns), rel=1e-9)
    if 0 < alpha < 1 and c < v / slowdowns[0]:  # a simulation that takes any added token for right is told apart
        slipped = by_enumeration(alpha, gamma, c, v, *slowdowns, bonus_counts=False)
        assert found != pytest.approx(slipped, rel=1e-3)
    one_unit = speedup(alpha, gamma, c, v)
    if slowdowns == (1.0, 1.0):
        assert found >= one_unit * (1 - 1e-12)
    if slowdowns == (2.0, 2.0):
        assert found <= one_unit * (1 + 1e-12)


def test_a_sure_draft_costs_nothing_where_it_keeps_up():
    assert overlapped_speedup(1.0, 4, 0.2) == pytest.approx(5.0)  # five guesses during one verification
    assert overlapped_speedup(0.0, 4, 0.2) == speedup(0.0, 4, 0.2)
    assert overlapped_speedup(0.7, 0, 0.2) == 1.0


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="a slowdown must be at least 1, got 0.5 and 1.0"):
        overlapped_speedup(0.5, 3, 0.1, draft_slowdown=0.5)
    with pytest.raises(ValueError, match="alpha must lie in"):
        overlapped_speedup(1.5, 3, 0.1)
