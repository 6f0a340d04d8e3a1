"""Acceptance and speed of any drafters against one target on the same prompts, by the project's own decoding loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from adaspec_jax.decoding import Context, Generation, NoDraft, Sampling, generate
from adaspec_jax.decoding.types import Drafter, Model
from adaspec_jax.devices import processes
from adaspec_jax.measuring.costs import LONGEST, best_length, length_of, lengthened, model_of, round_costs
from adaspec_jax.measuring.evidence import Seen
from adaspec_jax.measuring.teacher_forced import AlongText, teacher_forced
from adaspec_jax.measuring.turns import PLAIN, Batch, Contender, counts_of, same_text, take_turns
from adaspec_jax.reporting import Counts, paired, summarize

# Goes into every report: without it no two acceptance numbers can be compared.
MEASURED_HOW = {
    "alpha": "accepted / judged; judged counts guesses up to and including the first mismatch of each round",
    "block_efficiency": "committed tokens per target call, bonus token included, prefill call not counted",
    "end_of_text": "stops a row; guesses past it or past max_new_tokens are neither judged nor accepted",
    "expected_alpha": "mean of sum_x min(p, q) at temperature 1, along a continuation sampled from the target",
    "teacher_forced_agreement": "share of the decoded continuation's positions where both models' argmax is the same",
    "average": "micro: sums over prompts",
    "identical_to_plain": "answers that are plain decoding's, token for token; null at temperature > 0",
    "promised_speedup": "(1 - alpha^(gamma+1)) / (1 - alpha) / (c_1 + c (gamma - 1) + v(gamma)): c_1, c and v are the "
    "first draft step of a round, each further one, and the verification, measured on this machine",
}
PROBE_LENGTH = 5  # guesses with which the first batch tells alpha, where the draft length is to be chosen


@dataclass(frozen=True)
class Measured:
    """What decoding the prompts with one drafter gave."""

    counts: Counts
    seconds: float
    identical: int | None  # rows whose tokens equal plain decoding's; None where both are drawn at random
    draft_length: int | None  # guesses in a row, where the drafter has such a number
    sample: Generation  # the first batch, for the report's coloured answer


def measure(
    target: Model,
    contenders: Mapping[str, Contender],
    batches: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    eos_id: int | Sequence[int],
    seed: int = 0,
    choose_length: bool = False,
    place: Callable[[Any], Any] = lambda rows: rows,
    advance: Callable[[int], None] = lambda prompts: None,
    look: Callable[[Batch, Seen, Mapping[str, Seen]], None] | None = None,
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Every contender on every batch of prompts, in turn with plain decoding.

    Args:
      batches: {"tokens_BT", "lengths_B", "valid"} as `data.prompt_batches` gives them; only `valid` rows count.
      choose_length: all drafters with a `length` take the one that is best for the last of them, by its acceptance on
        the first batch (at the length it has) and the costs measured here.
      place: puts rows onto the devices of a mesh.
      look: is shown what plain decoding and every contender made of each batch, as `Evidence.look` takes it.

    Returns:
      A `Measured` per contender, and {"seconds", "tokens", "costs"} of plain decoding, the last from `round_costs`.
      Compilation is not in the times. Figures of a draft model along given text are those of the drafters whose guesses
      are one model's own (`model_of`), or a head's; others have none.
    """
    root, knobs = jax.random.key(seed), {"max_new_tokens": max_new_tokens, "eos_id": eos_id}
    drafters = {name: contender.drafter for name, contender in contenders.items()}
    shape, longest = batches[0]["tokens_BT"].shape, max([LONGEST, *filter(None, map(length_of, drafters.values()))])
    sizes = {"max_new_tokens": max_new_tokens, "longest": longest}
    costs = round_costs(target, drafters, shape, sampling=sampling, **sizes, place=place)
    decode = partial(generate, target, **knobs)

    def ways_of(contenders):
        ways = {PLAIN: partial(decode, NoDraft(), sampling=sampling)}
        return ways | {n: partial(decode, c.drafter, sampling=sampling, accept=c.accept) for n, c in contenders.items()}

    if choose_length and costs["draft_step"]:
        name = list(costs["draft_step"])[-1]
        length = _fastest_length(costs, name, ways_of(contenders)[name], batches[0], root, place)
        contenders = {name: _lengthened(contender, length) for name, contender in contenders.items()}
    ways = ways_of(contenders)
    guessing = {name: _said_by(contender.drafter, target) for name, contender in contenders.items()}
    with_model = any(model is not None for model in guessing.values())
    seconds = dict.fromkeys(ways, 0.0)
    parts: dict[str, list[dict]] = {name: [] for name in contenders}
    identical, samples, tokens = dict.fromkeys(contenders, 0 if sampling.greedy else None), {}, 0
    for batch, turns in take_turns(ways, batches, root, place=place):
        host = {name: processes.fetch(turn.made) for name, turn in turns.items()}
        plain, sampled = turns[PLAIN].made, None
        if with_model:
            # Acceptance under sampling shows on sampled text; greedy text is a corner that the target seldom visits.
            key = jax.random.fold_in(batch.key, 1)
            sampled = decode(NoDraft(), batch.prompt, key, sampling=Sampling(temperature=1.0))
        for name, turn in turns.items():
            seconds[name] += turn.seconds
        tokens += int(counts_of(host[PLAIN], batch)["committed"].sum())
        for name in contenders:
            along = _along_given_text(target, guessing[name], batch, plain, sampled)
            parts[name].append(counts_of(host[name], batch) | along)
            samples.setdefault(name, host[name])
            if sampling.greedy:
                identical[name] += int(same_text(host[name], host[PLAIN], batch).sum())
        if look is not None:
            models = {PLAIN: None, **guessing}
            shown = {n: Seen(models[n], turn.made, host[n], turn.seconds) for n, turn in turns.items()}
            look(batch, shown.pop(PLAIN), shown)
        advance(batch.valid)
    measured = {
        name: Measured(_joined(parts[name]), seconds[name], identical[name], length_of(c.drafter), samples[name])
        for name, c in contenders.items()
    }
    return measured, {"seconds": seconds[PLAIN], "tokens": tokens, "costs": costs}


def _said_by(drafter: Drafter, target: Model) -> Model | AlongText | None:
    """What says a drafter's guesses along given text: its model, or its head on the target; None where nothing does."""
    head = getattr(getattr(drafter, "head", None), "head", None)
    return model_of(drafter) if head is None else AlongText(head, target)


def _fastest_length(costs, name: str, way, rows, key, place) -> int:
    """The number of guesses at which the contender `name` is fastest, by its acceptance on these prompts."""
    made = processes.fetch(way(Context(place(rows["tokens_BT"]), place(rows["lengths_B"])), key))
    alpha = float(made.accepted_BN.sum() / max(made.judged_BN.sum(), 1))
    return best_length(costs, name, alpha)["best_draft_length"] or 1


def _lengthened(contender: Contender, length: int) -> Contender:
    if length_of(contender.drafter) is None:
        return contender
    return contender._replace(drafter=lengthened(contender.drafter, length))


def _along_given_text(target, model, batch: Batch, plain: Generation, sampled: Generation | None) -> dict:
    """Agreement and overlap of target and draft model, per row [P]; zero positions where there is no such model."""
    if model is None:
        names = "overlap_sum", "agreement_sum", "positions", "overlap_positions"
        return dict.fromkeys(names, np.zeros(batch.valid))
    prompt_lengths_B = batch.prompt.lengths_B
    _, agreement_B, positions_B = teacher_forced(target, model, plain.tokens_BS, prompt_lengths_B, plain.lengths_B)
    overlap_B, _, overlapped_B = teacher_forced(target, model, sampled.tokens_BS, prompt_lengths_B, sampled.lengths_B)
    rows = {
        "overlap_sum": overlap_B,
        "agreement_sum": agreement_B,
        "positions": positions_B,
        "overlap_positions": overlapped_B,
    }
    return {name: row_B[: batch.valid] for name, row_B in processes.fetch(rows).items()}


def _joined(rows: list[dict]) -> Counts:
    histogram = sum(row["histogram"] for row in rows)
    fields = [name for name in rows[0] if name != "histogram"]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in fields}
    return Counts(**joined, accepted_histogram=histogram)


def report_fields(
    measured: Mapping[str, Measured],
    plain: Mapping[str, Any],
    *,
    resamples: int,
    pairs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The "drafts", "paired" and "speed" of a report."""
    plain_rate = plain["tokens"] / plain["seconds"]
    lengths = [result.draft_length for result in measured.values() if result.draft_length]
    speed: dict[str, Any] = {"plain_tokens_per_second": plain_rate}
    if lengths:
        speed["draft_length"] = lengths[-1]
    drafts = {name: summarize(result.counts, resamples=resamples) for name, result in measured.items()}
    for name, result in measured.items():
        rate, alpha = float(result.counts.committed.sum()) / result.seconds, drafts[name]["alpha"]
        priced = alpha is not None and name in plain["costs"]["draft_step"]
        speed[name] = {
            "tokens_per_second": rate,
            "speedup": rate / plain_rate,
            "identical_to_plain": result.identical,
            **(best_length(plain["costs"], name, alpha, result.draft_length) if priced else {}),
        }
    return {
        "drafts": drafts,
        "paired": {f"{a}-{b}": paired(measured[a].counts, measured[b].counts, resamples=resamples) for a, b in pairs},
        "speed": speed,
        "costs_in_seconds": plain["costs"],
    }
