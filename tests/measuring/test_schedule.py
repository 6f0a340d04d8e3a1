"""The schedule's arithmetic, against brute force over rounds that are written out one by one."""

import numpy as np
import pytest

from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.measuring.schedule import expected, held_against
from adaspec_jax.serving.schedules import ranges, sglang_options, vllm_settings

LENGTHS = [1, 2, 3, 5, 8]


def brute_force(rows, accepted, costs, n):
    """Tokens per second of `rows` rows that go through these rounds with at most `n` guesses, none waiting."""
    tokens = seconds = 0.0
    for kept in accepted:
        tokens += min(kept, n) + 1
        seconds += costs.of(n)
    return rows * tokens / seconds


@pytest.mark.parametrize("seed", range(4))
def test_what_is_expected_is_what_rounds_one_by_one_give(seed):
    rng = np.random.default_rng(seed)
    accepted = np.minimum(rng.geometric(1 - [0.95, 0.8, 0.6, 0.05][seed], 400) - 1, 8)
    histogram = np.bincount(accepted, minlength=9)
    costs = RoundCosts(0.31, 0.13, {0: 1.0, 1: 1.1, 3: 1.3, 7: 2.1, 8: 2.2})
    found = expected(4, histogram, costs, LENGTHS)
    rates = {n: brute_force(4, accepted, costs, n) for n in (0, *LENGTHS)}
    assert list(found) == [0, *LENGTHS]
    for n, rate in rates.items():
        assert found[n]["tokens_per_second"] == pytest.approx(rate)
        assert found[n]["speedup"] == pytest.approx(rate / rates[0])
    best = max(found, key=lambda n: found[n]["tokens_per_second"])
    assert best == max(rates, key=rates.get) and (best == 0) == (seed == 3)


def test_a_round_costs_its_draft_steps_and_the_verification_that_holds_them():
    costs = RoundCosts(0.5, 0.2, {0: 1.0, 2: 1.4, 6: 3.0})
    assert [costs.of(n) for n in (0, 1, 2, 4)] == pytest.approx([1.0, 0.5 + 1.2, 0.7 + 1.4, 1.1 + 2.2])
    assert [costs.of(n, (0, 2, 6)) for n in (0, 1, 2, 3)] == pytest.approx([1.0, 0.5 + 1.4, 0.7 + 1.4, 0.9 + 3.0])
    with pytest.raises(ValueError):
        costs.of(7)


def candidate(seconds, tokens, rate, ci95=(1.0, 1.0)):
    measured = {"seconds_per_round": seconds, "tokens_per_round": tokens, "tokens_per_second": rate}
    return {"seconds_per_round": 1.0, "tokens_per_round": 2.0, "measured": measured | {"speedup_ci95": list(ci95)}}


def test_a_choice_is_held_against_the_candidate_that_measured_fastest():
    found = {0: candidate(1.0, 2.0, 98.0), 3: candidate(1.5, 1.9, 90.0), 5: candidate(1.1, 2.2, 100.0)}
    near, far = held_against(found, 0), held_against(found, 3)
    assert near["best"] == far["best"] == 5 and near["behind"] == pytest.approx(0.02)
    assert near["enough"] and near["reason"] == "" and not far["enough"]
    assert "5 guesses: a round 1.10 times its parts, tokens 1.10 times" in far["reason"]
    assert "3 guesses: a round 1.50 times its parts, tokens 0.95 times" in far["reason"]
    found[5]["measured"]["speedup_ci95"] = [0.9, 1.2]
    assert "overlap" in far["reason"] and "overlap" in held_against(found, 3)["reason"]
    found[5]["measured"]["speedup_ci95"] = [1.1, 1.2]
    assert "overlap" not in held_against(found, 3)["reason"]


def in_ranges(table, size):
    return next(count for first, last, count in table if first <= size <= last)


@pytest.mark.parametrize(
    ("guesses", "table"),
    [
        ({1: 5, 2: 5, 4: 3, 8: 3, 16: 0}, [[1, 2, 5], [3, 8, 3], [9, 16, 0]]),
        ({4: 2}, [[1, 4, 2]]),
        ({16: 1, 1: 1}, [[1, 16, 1]]),
        ({1: 0, 8: 2}, [[1, 1, 0], [2, 8, 2]]),
    ],
)
def test_ranges_cover_every_size_up_to_the_largest_once(guesses, table):
    assert ranges(guesses) == table
    for size in range(1, max(guesses) + 1):
        assert in_ranges(table, size) == guesses[min(n for n in guesses if n >= size)]


def test_servers_are_told_what_their_documentation_asks_for():
    guesses = {1: 3, 64: 1, 128: 0}
    settings = vllm_settings("my-draft", guesses)
    assert settings == {
        "method": "draft_model",
        "model": "my-draft",
        "num_speculative_tokens": 3,
        "num_speculative_tokens_per_batch_size": [[1, 1, 3], [2, 64, 1], [65, 128, 0]],
    }
    options = sglang_options(guesses)
    assert "--speculative-num-steps 3 " in options["1"] and options["1"].endswith("num-draft-tokens 4")
    assert options["128"] is None
    assert vllm_settings("my-draft", {1: 0, 8: 0}) is None
