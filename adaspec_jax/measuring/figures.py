"""What a benchmark says of one method: ratios with intervals, from counts per request and times per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import PROMPT, TARGET, Generation
from adaspec_jax.measuring.turns import Batch, counts_of
from adaspec_jax.reporting.statistics import interval

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one method made of all prompts at one batch size."""

    accepted: np.ndarray  # [P] as the other counts of `turns.counts_of`
    judged: np.ndarray
    drafted: np.ndarray
    committed: np.ndarray
    rounds: np.ndarray
    identical: np.ndarray  # [P] whether the text is plain decoding's
    histogram: np.ndarray  # [N + 1] rounds by accepted guesses
    refused: np.ndarray  # [N + 1] those of them that a refusal ended
    seconds: np.ndarray  # [K] of each batch, prefill included, in all repetitions
    prefill_seconds: np.ndarray  # [K]
    tokens: np.ndarray  # [K] committed in it, in all repetitions
    rows: np.ndarray  # [K] requests that count in it
    repetitions: int = 1

    @classmethod
    def of(cls, parts: Sequence[dict[str, Any]]) -> Tally:
        """Of the batches in order, each as `part_of` has it."""
        whole = {name: np.stack([part[name] for part in parts]) for name in _PER_BATCH}
        added = {name: sum(part[name] for part in parts) for name in ("histogram", "refused")}
        names = ("accepted", "judged", "drafted", "committed", "rounds", "identical")
        return cls(**whole, **added, **{name: np.concatenate([part[name] for part in parts]) for name in names})

    def timed_again(self, other: Tally) -> Tally:
        """With the times of another repetition of the same decodings."""
        again = {name: getattr(self, name) + getattr(other, name) for name in ("seconds", "prefill_seconds", "tokens")}
        return replace(self, **again, repetitions=self.repetitions + other.repetitions)

    @property
    def timed(self) -> bool:
        """Whether times were taken: none are where a record is replayed."""
        return bool(self.seconds.any())

    @property
    def decoding_seconds(self) -> np.ndarray:
        """[K] without prefill, which is timed apart; of a tiny model it may come out longer than the whole."""
        return np.maximum(self.seconds - self.prefill_seconds, 0.01 * self.seconds)


_PER_BATCH = ("seconds", "prefill_seconds", "tokens", "rows")


def part_of(made: Generation, batch: Batch, identical_P, seconds: float, prefill_seconds: float) -> dict[str, Any]:
    """One batch of a `Tally`; `made` holds whole NumPy arrays."""
    counts = counts_of(made, batch)
    return counts | {
        "identical": identical_P,
        "refused": _rounds_ended_by_refusal(made)[: batch.valid].sum(0),
        "seconds": seconds,
        "prefill_seconds": prefill_seconds,
        "tokens": counts["committed"].sum(),
        "rows": batch.valid,
    }


def _rounds_ended_by_refusal(made: Generation) -> np.ndarray:
    """[B, N + 1] by the number of guesses accepted before.

    A round ends with the target's own token, and a guess refused there is noted beside it: so the text itself tells at
    which depth each round's last judgement fell, for chains and trees alike.
    """
    batch, columns = made.histogram_BM.shape
    found = np.zeros((batch, columns), int)
    for row in range(batch):
        origin = made.origin_BS[row, : made.lengths_B[row]]
        ends = np.flatnonzero(origin == TARGET)
        before = np.concatenate([[np.sum(origin == PROMPT) - 1], ends[:-1]])
        refused = made.rejected_BS[row, ends] >= 0
        found[row] = np.bincount((ends - before - 1)[refused], minlength=columns)
    return found


def accepted_at(tally: Tally) -> list[float]:
    """Share accepted at each depth, of the rounds that judged it; as deep as any round came."""
    reached = np.cumsum(tally.histogram[::-1])[::-1][1:]  # rounds that accepted at least so many
    judged = reached + tally.refused[:-1]
    return [float(part / whole) for part, whole in zip(reached, judged, strict=True) if whole]


def figures(tally: Tally, plain: Tally, *, settled: bool) -> dict[str, Any]:
    """The numbers of the benchmark's JSON that one batch size has; those of time are null where none was taken."""
    times: dict[str, Any] = dict.fromkeys(("tokens_per_second", "speedup", "speedup_ci95"))
    if tally.timed:
        rates = [rate(side, np.ones((1, len(side.tokens))))[0] for side in (tally, plain)]
        times = {"tokens_per_second": rates[0], "speedup": rates[0] / rates[1]}
        times["speedup_ci95"] = speedup_interval(tally, plain)
    return {
        **counted(tally, slice(None), settled=settled),
        "ci95": interval(len(tally.rounds), lambda w_RP: (w_RP @ tally.committed) / (w_RP @ tally.rounds)),
        "histogram": tally.histogram.tolist(),
        "accepted_at": accepted_at(tally),
        **times,
        "repetitions": tally.repetitions,
        "vllm": in_vllms_words(tally),
    }


def speedup_interval(tally: Tally, plain: Tally) -> list[float]:
    """The middle 95 % over resampled batches, both ways' times of a batch kept together."""
    return interval(len(tally.tokens), lambda weights_RK: rate(tally, weights_RK) / rate(plain, weights_RK))


def counted(tally: Tally, rows, *, settled: bool) -> dict[str, Any]:
    """What counts of these requests alone say."""
    committed, rounds = tally.committed[rows], tally.rounds[rows]
    return {
        "tokens_per_target_call": float(committed.sum() / rounds.sum()),
        "mean_over_requests": float(np.mean(committed / rounds)),
        "accepted": int(tally.accepted[rows].sum()),
        "judged": int(tally.judged[rows].sum()),
        "rounds": int(rounds.sum()),
        "identical_to_plain": int(tally.identical[rows].sum()) if settled else None,
        "prompts": len(rounds),
    }


def in_vllms_words(tally: Tally) -> dict[str, Any]:
    """The names and definitions of vLLM's metrics; rates are null where nothing was drafted.

    Guesses that could not have been committed, past the end of a text, are not counted as drafted.
    """
    rounds, drafted = int(tally.histogram.sum()), int(tally.drafted.sum())
    reached = np.cumsum(tally.histogram[::-1])[::-1][1:]
    return {
        "mean_acceptance_length": 1 + float(tally.accepted.sum()) / rounds,
        "draft_acceptance_rate": float(tally.accepted.sum()) / drafted if drafted else None,
        "per_position_acceptance_rates": [float(count) / rounds for count in reached],
    }


def request_rows(tally: Tally, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """A row per request; its seconds are those of the batch it was decoded in, which it waited for."""
    seconds_P = np.repeat(tally.seconds / tally.repetitions, tally.rows)
    return [
        {
            "id": prompt.id,
            "category": prompt.category,
            **({"turn": prompt.turn} if prompt.turn else {}),
            "new_tokens": int(tally.committed[row]),
            "rounds": int(tally.rounds[row]),
            "accepted": int(tally.accepted[row]),
            "judged": int(tally.judged[row]),
            "seconds": float(seconds_P[row]) if tally.timed else None,
        }
        for row, prompt in enumerate(prompts)
    ]


def rate(tally: Tally, weights_RK: np.ndarray) -> np.ndarray:
    """[R] tokens per second of weighted batches."""
    return (weights_RK @ tally.tokens) / (weights_RK @ tally.decoding_seconds)
