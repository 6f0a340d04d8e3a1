"""The formulas agree with a simulation and with each other."""

import numpy as np
import pytest

from adaspec_jax.decoding.speedup import best_draft_length, break_even_alpha, speedup, tokens_per_round


def test_tokens_per_round_equals_a_simulation_of_independent_acceptances():
    accepted = np.random.default_rng(0).random((200_000, 5)) < 0.7
    simulated = 1 + np.cumprod(accepted, axis=1).sum(1).mean()
    assert tokens_per_round(0.7, 5) == pytest.approx(simulated, abs=0.02)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_tokens_per_round_equals_the_closed_form(alpha):
    assert tokens_per_round(alpha, 4) == pytest.approx((1 - alpha**5) / (1 - alpha))


def test_tokens_per_round_reaches_its_limit_without_dividing_by_zero():
    assert tokens_per_round(1.0, 5) == 6.0
    assert tokens_per_round(1 - 1e-15, 5) == pytest.approx(6.0, abs=1e-12)
    assert tokens_per_round(0.5, 0) == 1.0  # no guesses: plain decoding


def test_speedup_divides_by_what_a_round_costs():
    assert speedup(0.0, 5, 0.1) == pytest.approx(1 / 1.5)
    assert speedup(1.0, 5, 0.1, verify_cost=1.5) == pytest.approx(6 / 2.0)


@pytest.mark.parametrize(("gamma", "cost_ratio", "verify_cost"), [(5, 0.05, 1.0), (3, 0.4, 1.0), (8, 0.2, 1.3)])
def test_break_even_alpha_is_where_the_speedup_is_one(gamma, cost_ratio, verify_cost):
    alpha = break_even_alpha(gamma, cost_ratio, verify_cost)
    assert speedup(alpha, gamma, cost_ratio, verify_cost) == pytest.approx(1.0, abs=1e-9)
    assert speedup(alpha - 0.01, gamma, cost_ratio, verify_cost) < 1


def test_break_even_alpha_says_never_and_always():
    assert break_even_alpha(4, 1.5) is None
    assert break_even_alpha(4, 1.0) == pytest.approx(1.0)
    assert break_even_alpha(4, 0.0) == 0.0


def test_the_best_draft_length_follows_measured_costs():
    cheap = best_draft_length(0.8, 0.05, lambda gamma: 1.0)
    assert cheap[0] == max(range(1, 17), key=lambda gamma: speedup(0.8, gamma, 0.05)) > 5
    assert cheap[1] == speedup(0.8, cheap[0], 0.05)
    # Verification that grows with every guess shortens it; a draft as dear as the target is not worth a guess.
    assert best_draft_length(0.8, 0.05, lambda gamma: 1 + 0.2 * gamma)[0] < cheap[0]
    assert best_draft_length(0.8, 1.0, lambda gamma: 1.0) == (0, 1.0)
    assert best_draft_length(1.0, 0.1, lambda gamma: 1.0, longest=4)[0] == 4


@pytest.mark.parametrize("arguments", [(1.2, 5), (-0.1, 5), (0.5, -1), (0.5, 2.5)])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        tokens_per_round(*arguments)
