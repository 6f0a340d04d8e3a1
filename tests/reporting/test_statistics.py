"""The interval covers, the p-value is calibrated, and a draft that was never judged breaks nothing."""

import json

import numpy as np
import pytest
from scipy import stats

from adaspec_jax.reporting import Counts, paired, summarize

CONTRACT = {
    "alpha",
    "ci95",
    "accepted",
    "judged",
    "drafted",
    "block_efficiency",
    "expected_alpha",
    "teacher_forced_agreement",
    "rounds",
    "prompts",
}


def counts_of(accepted, judged, **others):
    accepted, judged = np.asarray(accepted), np.asarray(judged)
    rounds = judged - accepted + 1
    given = {
        "drafted": judged,
        "rounds": rounds,
        "committed": accepted + rounds,
        "positions": judged,
        "overlap_sum": 0.5 * judged,
        "agreement_sum": accepted,
    }
    return Counts(accepted=accepted, judged=judged, **{**given, **others})


def simulated(rng, prompts=80, shift=0.0, difficulty=None):
    """Prompts of different difficulty and length: tokens within a prompt are far from independent."""
    difficulty = rng.beta(6, 4, prompts) if difficulty is None else difficulty
    judged = rng.integers(20, 120, prompts)
    return counts_of(rng.binomial(judged, np.clip(difficulty + shift, 0, 1)), judged)


def test_the_summary_holds_the_ratios_of_sums_and_not_means_of_ratios():
    counts = counts_of(
        [1, 90],
        [10, 100],
        drafted=[20, 110],
        committed=[11, 100],
        rounds=[10, 20],
        positions=[10, 90],
        overlap_sum=[1.0, 80.0],
        agreement_sum=[2, 70],
        accepted_histogram=[5, 10, 15],
    )
    summary = summarize(counts)
    assert CONTRACT <= summary.keys()
    assert summary["alpha"] == 91 / 110
    assert summary["block_efficiency"] == 111 / 30
    assert summary["expected_alpha"] == 81 / 100
    assert summary["teacher_forced_agreement"] == 72 / 100
    assert (summary["accepted"], summary["judged"], summary["drafted"]) == (91, 110, 130)
    assert (summary["rounds"], summary["prompts"], summary["accepted_histogram"]) == (30, 2, [5, 10, 15])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary  # Python numbers, nothing rounded or NumPy
    assert type(summary["judged"]) is int and type(summary["alpha"]) is float


def test_the_interval_covers_the_true_alpha_about_95_percent_of_the_time():
    # Lengths are independent of difficulty here, so the population's micro-averaged alpha is the mean of Beta(6, 4).
    rng = np.random.default_rng(0)
    runs, covered = 600, 0
    for run in range(runs):
        low, high = summarize(simulated(rng), seed=run, resamples=600)["ci95"]
        covered += low <= 0.6 <= high
    # 3.5 binomial standard deviations around 0.945 (a percentile bootstrap is slightly narrow at 80 prompts). Treating
    # tokens as independent draws covers 0.52, a 90 % interval 0.88.
    assert 0.912 <= covered / runs <= 0.978


def test_the_interval_agrees_with_the_delta_method_when_prompts_are_many():
    counts = simulated(np.random.default_rng(1), prompts=2000)
    summary = summarize(counts, resamples=4000)
    residual = counts.accepted - summary["alpha"] * counts.judged
    width = 2 * 1.96 * np.sqrt(np.sum(residual**2)) / counts.judged.sum()
    low, high = summary["ci95"]
    assert high - low == pytest.approx(width, rel=0.06)


def test_the_interval_does_not_depend_on_how_the_resamples_are_chunked(monkeypatch):
    from adaspec_jax.reporting import statistics

    counts = simulated(np.random.default_rng(2))
    whole = summarize(counts, resamples=4000)["ci95"]
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", 8000)
    assert summarize(counts, resamples=4000)["ci95"] == whole  # the stream of draws is the same, only cut elsewhere
    assert summarize(counts, resamples=4000, seed=1)["ci95"] != whole


def test_each_resample_draws_as_many_prompts_as_there_are():
    from adaspec_jax.reporting import statistics

    weights = statistics._multinomial_weights(np.random.default_rng(0), 5000, 7)
    assert weights.shape == (5000, 7) and np.all(weights.sum(1) == 7)
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.06)
    np.testing.assert_allclose(weights.var(0), 6 / 7, rtol=0.1)


def test_a_draft_that_was_never_judged_has_no_alpha_and_no_interval():
    zeros = np.zeros(4, int)
    counts = counts_of(zeros, zeros, rounds=[3, 3, 3, 3], committed=[3, 3, 3, 3])
    summary = summarize(counts)
    assert summary["alpha"] is None and summary["ci95"] is None and summary["expected_alpha"] is None
    assert summary["block_efficiency"] == 1.0
    json.dumps(summary, allow_nan=False)
    assert paired(counts, counts_of([1, 1, 1, 1], [2, 2, 2, 2])) == {
        "difference": None,
        "ci95": None,
        "p_value": None,
    }


def test_no_prompts_at_all_give_a_summary_and_not_an_error():
    nothing = np.zeros(0, int)
    summary = summarize(counts_of(nothing, nothing))
    assert summary["alpha"] is None and summary["block_efficiency"] is None and summary["prompts"] == 0


def test_prompts_without_guesses_leave_the_interval_finite():
    summary = summarize(counts_of([0, 0, 3], [0, 0, 4]), resamples=500)
    assert summary["alpha"] == 0.75 and summary["ci95"] == [0.75, 0.75]
    test = paired(counts_of([0, 0, 3], [0, 0, 4]), counts_of([0, 0, 1], [0, 0, 4]), resamples=500)
    assert test["difference"] == 0.5 and 0 < test["p_value"] <= 1
    json.dumps([summary, test], allow_nan=False)


def test_identical_counts_differ_by_zero_with_p_one():
    counts = simulated(np.random.default_rng(3))
    assert paired(counts, counts) == {"difference": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}


def test_swapping_the_drafts_negates_the_difference():
    rng = np.random.default_rng(4)
    a, b = simulated(rng), simulated(rng)
    forward, backward = paired(a, b, resamples=2000), paired(b, a, resamples=2000)
    assert forward["difference"] == -backward["difference"]
    np.testing.assert_allclose(forward["ci95"], [-x for x in backward["ci95"][::-1]], atol=1e-12)
    assert forward["p_value"] == backward["p_value"]


def test_p_values_are_uniform_when_the_drafts_are_equally_good():
    rng = np.random.default_rng(5)
    p_values = []
    for run in range(400):
        difficulty = rng.beta(6, 4, 60)
        a, b = simulated(rng, 60, difficulty=difficulty), simulated(rng, 60, difficulty=difficulty)
        p_values.append(paired(a, b, seed=run, resamples=400)["p_value"])
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) < 0.09


def test_the_paired_test_finds_an_effect_that_unpaired_intervals_hide():
    rng = np.random.default_rng(6)
    difficulty = rng.beta(4, 4, 200)
    b, a = simulated(rng, 200, difficulty=difficulty), simulated(rng, 200, difficulty=difficulty, shift=0.03)
    test = paired(a, b)
    assert test["p_value"] < 0.01 and test["ci95"][0] > 0
    assert test["ci95"][0] < test["difference"] < test["ci95"][1]
    assert summarize(b)["ci95"][1] > summarize(a)["ci95"][0]  # the separate intervals overlap


def test_a_p_value_is_never_zero():
    a, b = counts_of([95] * 100, [100] * 100), counts_of([10] * 100, [100] * 100)
    assert paired(a, b, resamples=999)["p_value"] == 1 / 1000


def test_the_permutation_p_value_equals_full_enumeration_on_four_prompts():
    a, b = counts_of([9, 8, 7, 9], [10, 12, 9, 11]), counts_of([5, 6, 2, 6], [10, 9, 9, 8])
    observed = abs(a.accepted.sum() / a.judged.sum() - b.accepted.sum() / b.judged.sum())
    hits = 0
    for swap in np.ndindex(2, 2, 2, 2):
        swap = np.array(swap, bool)
        first = np.where(swap, b.accepted, a.accepted).sum() / np.where(swap, b.judged, a.judged).sum()
        second = np.where(swap, a.accepted, b.accepted).sum() / np.where(swap, a.judged, b.judged).sum()
        hits += abs(first - second) >= observed - 1e-12
    assert paired(a, b, resamples=40_000)["p_value"] == pytest.approx(hits / 16, abs=0.01)


def test_counts_that_cannot_belong_together_are_refused():
    with pytest.raises(ValueError, match="same prompts"):
        paired(counts_of([1], [2]), counts_of([1, 1], [2, 2]))
    with pytest.raises(ValueError, match="accepted exceeds Counts.judged"):
        counts_of([3], [2], rounds=[1], committed=[4])
    with pytest.raises(ValueError, match="rounds has shape"):
        counts_of([1, 1], [2, 2], rounds=[1])
    with pytest.raises(ValueError, match="finite"):
        counts_of([1.0], [2.0], overlap_sum=[np.nan])
    with pytest.raises(ValueError, match="resamples"):
        summarize(counts_of([1], [2]), resamples=0)
