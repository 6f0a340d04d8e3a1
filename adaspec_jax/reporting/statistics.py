"""Acceptance statistics: micro-averaged ratios, bootstrap intervals over prompts, and a paired test.

Prompts, not tokens, are the independent draws: tokens of one answer share its difficulty, so every resample and every
permutation moves whole prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_PER_PROMPT = ("accepted", "judged", "drafted", "committed", "rounds", "overlap_sum", "agreement_sum", "positions")
_CHUNK_ELEMENTS = 2_000_000  # resamples x prompts held at once: 16 MB of float64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """One draft's measurement, one entry per prompt [P]; ValueError when shapes or totals contradict each other."""

    accepted: np.ndarray  # [P] guesses accepted
    judged: np.ndarray  # [P] guesses up to and including the first mismatch of each round
    drafted: np.ndarray  # [P] guesses proposed
    committed: np.ndarray  # [P] new tokens, bonus and correction included
    rounds: np.ndarray  # [P] target calls, prefill not counted
    overlap_sum: np.ndarray  # [P] sum over positions of sum_x min(p, q) at temperature 1
    agreement_sum: np.ndarray  # [P] positions where the two argmaxes are equal
    positions: np.ndarray  # [P] teacher-forced positions behind agreement_sum, and behind overlap_sum but for
    overlap_positions: np.ndarray | None = None  # [P] those of another text
    accepted_histogram: np.ndarray | None = None  # [N+1] rounds by accepted count

    def __post_init__(self) -> None:
        if self.overlap_positions is None:
            object.__setattr__(self, "overlap_positions", self.positions)
        for name in (*_PER_PROMPT, "overlap_positions"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim != 1 or value.shape != np.shape(self.accepted):
                raise ValueError(f"Counts.{name} has shape {value.shape}; expected [P] = {np.shape(self.accepted)}")
            if not np.all(np.isfinite(value)) or np.any(value < 0):
                raise ValueError(f"Counts.{name} must be finite and at least 0")
            object.__setattr__(self, name, value)
        if self.accepted_histogram is not None:
            object.__setattr__(self, "accepted_histogram", np.asarray(self.accepted_histogram))
        for part, whole in (("accepted", "judged"), ("judged", "drafted"), ("agreement_sum", "positions")):
            if np.any(getattr(self, part) > getattr(self, whole)):
                raise ValueError(f"Counts.{part} exceeds Counts.{whole} for some prompt")

    @property
    def prompts(self) -> int:
        return len(self.accepted)

    def of(self, rows: np.ndarray) -> Counts:
        """Those prompts' alone: the histogram, which is of all, is left out."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Counts(**{name: value[rows] for name, value in fields.items() if name != "accepted_histogram"})

    def as_lists(self) -> dict[str, list[float]]:
        """Every field as a list, for a file; `Counts(**lists)` is this again."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value.tolist() for name, value in fields.items() if value is not None}


def summarize(counts: Counts, *, seed: int = 0, resamples: int = 10_000) -> dict[str, Any]:
    """The report's entry for one draft, as unrounded Python numbers.

    `alpha` = accepted / judged and `block_efficiency` = committed / rounds are ratios of sums over prompts; `ci95` is
    the percentile bootstrap of alpha over prompts (Efron 1979). A ratio whose denominator is 0 is None, and so is its
    interval: `NoDraft` has no acceptance. With one prompt the interval has no width.
    """
    alpha = _ratio(counts.accepted, counts.judged)
    interval = None
    if alpha is not None:
        interval = _percentiles(_bootstrap(counts.prompts, resamples, seed, lambda w_RP: _alphas(counts, w_RP)))
    summary = {
        "alpha": alpha,
        "ci95": interval,
        "accepted": _whole(counts.accepted),
        "judged": _whole(counts.judged),
        "drafted": _whole(counts.drafted),
        "block_efficiency": _ratio(counts.committed, counts.rounds),
        "expected_alpha": _ratio(counts.overlap_sum, counts.overlap_positions),
        "teacher_forced_agreement": _ratio(counts.agreement_sum, counts.positions),
        "rounds": _whole(counts.rounds),
        "prompts": counts.prompts,
    }
    if counts.accepted_histogram is not None:
        summary["accepted_histogram"] = [int(rounds) for rounds in counts.accepted_histogram]
    return summary


def paired(counts_a: Counts, counts_b: Counts, *, seed: int = 0, resamples: int = 10_000) -> dict[str, Any]:
    """alpha(a) - alpha(b) over the same prompts, its paired bootstrap interval and a two-sided permutation p-value.

    Both alphas are micro-averages. A bootstrap resample takes the same prompts for a and b; a permutation swaps a and b
    within each prompt with probability 1/2, and p = (1 + hits) / (1 + resamples), so it is never 0. All three are None
    when either draft was never judged. ValueError if the prompt counts differ.
    """
    if counts_a.prompts != counts_b.prompts:
        raise ValueError(f"a paired test needs the same prompts: got {counts_a.prompts} and {counts_b.prompts}")
    alpha_a, alpha_b = _ratio(counts_a.accepted, counts_a.judged), _ratio(counts_b.accepted, counts_b.judged)
    if alpha_a is None or alpha_b is None:
        return {"difference": None, "ci95": None, "p_value": None}
    observed = alpha_a - alpha_b

    def resampled(weights_RP: np.ndarray) -> np.ndarray:
        return _alphas(counts_a, weights_RP) - _alphas(counts_b, weights_RP)

    def permuted(swap_RP: np.ndarray) -> np.ndarray:
        accepted_R = swap_RP @ (counts_b.accepted - counts_a.accepted)  # what moves from b to a
        judged_R = swap_RP @ (counts_b.judged - counts_a.judged)
        first_R = _divide(counts_a.accepted.sum() + accepted_R, counts_a.judged.sum() + judged_R)
        second_R = _divide(counts_b.accepted.sum() - accepted_R, counts_b.judged.sum() - judged_R)
        return first_R - second_R

    bootstrap_seed, permutation_seed = np.random.SeedSequence(seed).spawn(2)
    differences_R = _bootstrap(counts_a.prompts, resamples, bootstrap_seed, resampled)
    null_R = np.abs(_draws(counts_a.prompts, resamples, permutation_seed, _coin_flips, permuted))
    # The sums are exact integers in float64, so a tie differs only by the last bits of a division: the tolerance keeps
    # it a hit. An undefined ratio (nothing judged on one side) is a hit too, which errs towards a larger p.
    hits = int(np.sum(~(null_R < abs(observed) - 1e-12)))
    return {
        "difference": observed,
        "ci95": _percentiles(differences_R),
        "p_value": (1 + hits) / (1 + resamples),
    }


def across_runs(
    runs: Sequence[Counts], others: Sequence[Counts] | None = None, *, seed: int = 0, resamples: int = 10_000
) -> dict[str, Any]:
    """Mean alpha of several training runs measured on the same prompts, or of its difference from `others`, paired.

    {"value", "ci95", "per_run"}. The interval holds what other prompts and other training runs would change: the
    variance of the mean is that over prompts (bootstrap, the same resampled prompts in every run) plus that between
    runs over their number, with Student's t at the degrees of freedom of Satterthwaite (1946), which are few where runs
    are few (with two runs it still holds the truth only 17 times in 20). One run has the variance over prompts alone.
    `others` are the paired runs, in the same order. ValueError where they, or the prompts, do not match.
    """
    from scipy import stats  # here, because it takes longer to import than doctor and compare run

    sides = [runs] if others is None else [runs, others]
    if len({len(side) for side in sides}) != 1 or len({counts.prompts for side in sides for counts in side}) != 1:
        raise ValueError("a paired comparison of runs needs as many runs on both sides, and the same prompts in all")
    prompts, number = runs[0].prompts, len(runs)

    def values(weights_RP: np.ndarray) -> np.ndarray:
        """[R, runs]."""
        alphas = [np.stack([_alphas(counts, weights_RP) for counts in side], axis=1) for side in sides]
        return alphas[0] if others is None else alphas[0] - alphas[1]

    per_run = values(np.ones((1, prompts)))[0]
    over_prompts = float(np.nanvar(np.mean(_bootstrap(prompts, resamples, seed, values), axis=1)))
    between = float(np.var(per_run, ddof=1)) / number if number > 1 else 0.0
    freedom = (over_prompts + between) ** 2 / (between**2 / (number - 1)) if between else np.inf
    half = float(stats.t.ppf(0.975, freedom)) * (over_prompts + between) ** 0.5
    mean = float(per_run.mean())
    return {"value": mean, "ci95": [mean - half, mean + half], "per_run": [float(value) for value in per_run]}


def interval(
    units: int, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 0, resamples: int = 10_000
) -> list[float]:
    """The middle 95 % of a statistic over bootstrap resamples of `units` (prompts, or batches timed together).

    `statistic` maps weights [R, units], how often each unit was drawn, to values [R]. One unit has no width.
    """
    return _percentiles(_bootstrap(units, resamples, seed, statistic))


def _ratio(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() > 0 else None


def _whole(values: np.ndarray) -> int:
    return round(float(values.sum()))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def _alphas(counts: Counts, weights_RP: np.ndarray) -> np.ndarray:
    return _divide(weights_RP @ counts.accepted, weights_RP @ counts.judged)


def _percentiles(values_R: np.ndarray) -> list[float]:
    """The middle 95 % of the defined values; a resample in which nothing was judged has no ratio."""
    low, high = np.nanpercentile(values_R, [2.5, 97.5])
    return [float(low), float(high)]


def _multinomial_weights(rng: np.random.Generator, rows: int, prompts: int) -> np.ndarray:
    """How often each of `prompts` prompts is drawn in `rows` resamples of that size, as float64 [rows, prompts]."""
    drawn = rng.integers(0, prompts, (rows, prompts)) + prompts * np.arange(rows)[:, None]
    # Counting uniform draws gives the multinomial law several times faster than Generator.multinomial.
    return np.bincount(drawn.ravel(), minlength=rows * prompts).reshape(rows, prompts).astype(np.float64)


def _coin_flips(rng: np.random.Generator, rows: int, prompts: int) -> np.ndarray:
    return rng.integers(0, 2, (rows, prompts), dtype=np.int8).astype(np.float64)


def _draws(
    prompts: int,
    resamples: int,
    seed: int | np.random.SeedSequence,
    draw: Callable[[np.random.Generator, int, int], np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """`statistic` of `resamples` random weight rows, computed a bounded number of rows at a time."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ELEMENTS // prompts)
    starts = range(0, resamples, chunk)
    return np.concatenate([statistic(draw(rng, min(chunk, resamples - start), prompts)) for start in starts])


def _bootstrap(prompts, resamples, seed, statistic) -> np.ndarray:
    return _draws(prompts, resamples, seed, _multinomial_weights, statistic)
