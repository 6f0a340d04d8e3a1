"""Which method of a table is the fastest, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from adaspec_jax.measuring.figures import RESAMPLES, Tally, rate, speedup_interval


class Most(NamedTuple):
    """The way that takes the fewest target calls, where no times were taken."""

    label: str
    tokens_per_target_call: float
    ci95: list[float]
    first_share: float  # of resamples of the requests in which it is the first
    ranked: list[str]  # all ways, the first first

    @property
    def record(self) -> dict[str, Any]:
        """For the report."""
        said = {"best": self.label, "tokens_per_target_call": self.tokens_per_target_call, "ci95": self.ci95}
        return {**said, "first_in_resamples": self.first_share, "ranked": self.ranked}


class Best(NamedTuple):
    """The fastest of several ways by one run, which flatters it where there are many."""

    label: str
    speedup: float  # over plain decoding
    ci95: list[float]
    first_share: float  # of resamples of the batches in which it is the fastest
    batches: int  # of one batch nothing is resampled

    @property
    def record(self) -> dict[str, Any]:
        """For the report."""
        return {
            "best": self.label,
            "speedup": self.speedup,
            "speedup_ci95": self.ci95,
            "first_in_resamples": self.first_share,
            "batches": self.batches,
        }


def best_of(tallies: Mapping[str, Tally], plain: str, *, seed: int = 0) -> Best:
    """The fastest by tokens per second, plain decoding among them; all ways' times of a batch are drawn together."""
    batches = len(tallies[plain].tokens)
    weights_RK = np.random.default_rng(seed).multinomial(batches, [1 / batches] * batches, size=RESAMPLES)
    whole_1K = np.ones((1, batches))
    rates = {label: float(rate(tally, whole_1K)[0]) for label, tally in tallies.items()}
    label = max(rates, key=rates.__getitem__)
    drawn_LR = np.stack([rate(tally, weights_RK) for tally in tallies.values()])
    first_R = np.argmax(drawn_LR, axis=0)
    return Best(
        label,
        rates[label] / rates[plain],
        speedup_interval(tallies[label], tallies[plain]),
        float(np.mean(first_R == list(tallies).index(label))),
        batches,
    )


def faster_yet(best: Best, lossy: Mapping[str, Tally], among: Mapping[str, Tally], plain: str) -> Best | None:
    """The fastest of lossy ways beside the best of the others, where it is faster: it buys speed with other text."""
    fastest = best_of({plain: among[plain], best.label: among[best.label], **lossy}, plain)
    return fastest if fastest.label in lossy else None


def most_of(tallies: Mapping[str, Tally], *, seed: int = 0) -> Most:
    """The first by tokens per target call; all ways' counts of a request are drawn together. Of equals the earlier."""
    requests = len(next(iter(tallies.values())).rounds)
    weights_RP = np.random.default_rng(seed).multinomial(requests, [1 / requests] * requests, size=RESAMPLES)
    calls = {label: float(tally.committed.sum() / tally.rounds.sum()) for label, tally in tallies.items()}
    ranked = sorted(calls, key=lambda label: -calls[label])
    drawn_LR = np.stack([(weights_RP @ tallies[n].committed) / (weights_RP @ tallies[n].rounds) for n in ranked])
    return Most(
        ranked[0],
        calls[ranked[0]],
        np.percentile(drawn_LR[0], (2.5, 97.5)).tolist(),
        float(np.mean(np.argmax(drawn_LR, axis=0) == 0)),
        ranked,
    )
