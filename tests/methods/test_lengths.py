"""Methods that choose how many guesses are made: what their knobs make, and how measured costs come to them."""

import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Analytical, ConfidentEnough, FiniteState, Survival
from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, Given
from tests.decoding.bag_model import BagModel

DRAFT = BagModel.random(1)
GIVEN = Given(target=BagModel.random(0), drafts={"d": DRAFT}, draft_length=4)


def stop_of(name, given=GIVEN, **knobs):
    drafter = METHODS[name].set(**knobs).make(given)
    return drafter, getattr(drafter, "chain", drafter).stop


def test_each_method_is_its_controller_with_its_sources_numbers():
    drafter, stop = stop_of("heuristic")
    assert stop == FiniteState(first=20, up=2, down=1, least=1, limit=32) and drafter.num_nodes == 32
    assert drafter.widths == (0, 8, 16)
    assert stop_of("finite_state")[1] == FiniteState(first=4)
    assert stop_of("finite_state", first="2", longest="3")[1] == FiniteState(first=2, limit=3)
    assert stop_of("specdec_pp")[1] == Survival(threshold=0.3, least=2, limit=20)
    assert stop_of("confident")[1] == ConfidentEnough(0.4, 20, step=0.0, inertia=1.0)
    drafter, stop = stop_of("copy_first", ngram=2, copies=7, longest=5)
    assert (drafter.copies.ngram, drafter.copies.length, drafter.num_nodes) == (2, 7, 7) and stop.limit == 5


def test_the_papers_costs_are_a_draft_step_for_each_guess_and_one_target_step():
    _, stop = stop_of("on_the_fly", cost=0.25, longest=4)
    assert isinstance(stop, Analytical) and set(stop.costs_M) == {1}
    np.testing.assert_allclose(stop.costs_M[1], [1.0, 1.25, 1.5, 1.75, 2.0], rtol=1e-6)


def test_measured_costs_are_asked_for_when_the_drafter_is_made_and_hold_for_the_widths_verified():
    asked = []

    def costs(given, drafter, longest):
        asked.append((given.target is GIVEN.target, drafter.model is DRAFT, drafter.stop, longest))
        return {1: RoundCosts(0.5, 0.2, {0: 1.0, 1: 1.1, 8: 2.5}), 32: RoundCosts(1.0, 0.5, {0: 1.0, 8: 9.0})}

    given = Given(target=GIVEN.target, drafts=GIVEN.drafts, costs=costs)
    drafter, stop = stop_of("auto", given, longest=8)
    assert asked == [(True, True, None, 8)] and drafter.widths == (0, 2, 4)
    two, four, eight = 1.1 + 1.4 / 7, 1.1 + 3 * 1.4 / 7, 2.5  # verified at 2, 4 and 8 guesses
    expected = [1.0, 0.5 + two, 0.7 + two, 0.9 + four, 1.1 + four, 1.3 + eight, 1.5 + eight, 1.7 + eight, 1.9 + eight]
    np.testing.assert_allclose(stop.costs_M[1], expected, rtol=1e-6)
    assert stop.costs_M[32].shape == (9,) and stop.costs_M[32].dtype == jnp.float32
    with pytest.raises(UserError, match="the method auto needs a target whose rounds can be timed"):
        METHODS["auto"].make(GIVEN)


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("on_the_fly", {"cost": 0}, "cost is 0; a draft step costs more than nothing"),
        ("on_the_fly", {"window": 0}, "window is 0; it must be at least 1"),
        ("on_the_fly", {"longest": 0}, "longest is 0; it must be at least 1"),
        ("on_the_fly", {"prior": 1.5}, "prior is 1.5; it must be between 0 and 1"),
        ("finite_state", {"first": 20}, "least is 1, first 20 and longest 16; they must rise, from 1 on"),
        ("finite_state", {"least": 0}, "least is 0, first 4 and longest 16; they must rise, from 1 on"),
        ("heuristic", {"down": -1}, "up is 2 and down -1; both are numbers of guesses, 0 or more"),
        ("specdec_pp", {"threshold": 2.0}, "threshold is 2.0; it must be between 0 and 1"),
        ("specdec_pp", {"least": 30}, "least is 30 and longest 20; they must rise, from 1 on"),
        ("confident", {"longest": 0}, "longest is 0; it must be at least 1"),
        ("copy_first", {"copies": 0}, "length must be at least 1, not 0"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(name, knobs, says):
    with pytest.raises(UserError, match=says) as caught:
        METHODS[name].set(**knobs).make(GIVEN)
    assert "\n" not in str(caught.value)
