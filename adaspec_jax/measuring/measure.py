"""Acceptance and speed of drafts against one target on the same prompts, by the project's own decoding loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from adaspec_jax.decoding import ChainDrafter, Context, Generation, NoDraft, Sampling, generate, rejection_sample
from adaspec_jax.devices import processes
from adaspec_jax.measuring.costs import (
    LONGEST,
    best_length,
    round_costs,
)
from adaspec_jax.measuring.teacher_forced import teacher_forced
from adaspec_jax.reporting import Counts, paired, summarize

# Goes into every report: without it no two acceptance numbers can be compared.
MEASURED_HOW = {
    "alpha": "accepted / judged; judged counts guesses up to and including the first mismatch of each round",
    "block_efficiency": "committed tokens per target call, bonus token included, prefill call not counted",
    "end_of_text": "stops a row; guesses past it or past max_new_tokens are neither judged nor accepted",
    "expected_alpha": "mean of sum_x min(p, q) at temperature 1, along a continuation sampled from the target",
    "teacher_forced_agreement": "share of the decoded continuation's positions where both models' argmax is the same",
    "average": "micro: sums over prompts",
    "promised_speedup": "(1 - alpha^(gamma+1)) / (1 - alpha) / (c gamma + v(gamma)), c and v measured on this machine",
}
_PROBE_LENGTH = 5  # guesses with which the first batch tells alpha, where the draft length is to be chosen


@dataclass(frozen=True)
class Measured:
    """What decoding the prompts with one draft gave."""

    counts: Counts
    seconds: float
    identical: int  # rows whose tokens equal plain decoding's (greedy)
    sample: Generation  # the first batch, for the report's coloured answer


def measure(
    target: Any,
    drafts: Mapping[str, Any],
    batches: Sequence[Mapping[str, Any]],
    *,
    draft_length: int,
    max_new_tokens: int,
    temperature: float,
    eos_id: int,
    seed: int = 0,
    accept: Callable[..., Any] = rejection_sample,
    place: Callable[[Any], Any] = lambda rows: rows,
    advance: Callable[[int], None] = lambda prompts: None,
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Every draft on every batch of prompts, interleaved with plain decoding so that all meet the same machine.

    Args:
      batches: {"tokens_BT", "lengths_B", "valid"} as `data.prompt_batches` gives them; only `valid` rows count.
      draft_length: guesses per round; 0 takes the best for the last of `drafts`, by its acceptance on the first batch
        and the costs measured here.
      accept: the acceptance rule of the drafts; plain decoding is never lenient.
      place: puts rows onto the devices of a mesh.

    Returns:
      A `Measured` per draft, and {"seconds", "tokens", "draft_length", "costs"} of plain decoding, with the length used
      and the `round_costs`. Compilation is not in the times: every program runs its first batch once beforehand.
    """
    sampling = Sampling(temperature=temperature)
    root = jax.random.key(seed)
    sizes = {"max_new_tokens": max_new_tokens, "longest": max(draft_length, LONGEST)}
    costs = round_costs(target, drafts, batches[0]["tokens_BT"].shape, **sizes, place=place)
    if not draft_length:
        name, model = list(drafts.items())[-1]
        first = Context(place(batches[0]["tokens_BT"]), place(batches[0]["lengths_B"]))
        knobs = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": eos_id, "accept": accept}
        probe = processes.fetch(generate(target, ChainDrafter(model, length=_PROBE_LENGTH), first, root, **knobs))
        alpha = float(probe.accepted_BN.sum() / max(probe.judged_BN.sum(), 1))
        draft_length = best_length(costs, name, alpha)["best_draft_length"] or 1
    drafters = {"plain": NoDraft()} | {n: ChainDrafter(model, length=draft_length) for n, model in drafts.items()}
    seconds = dict.fromkeys(drafters, 0.0)
    parts: dict[str, list[dict]] = {name: [] for name in drafts}
    identical, samples, warm = dict.fromkeys(drafts, 0), {}, set()
    plain_tokens = 0
    for number, batch in enumerate(batches):
        valid = batch["valid"]
        prompt = Context(place(batch["tokens_BT"]), place(batch["lengths_B"]))

        def decode(name, key, sampling=sampling, prompt=prompt):
            knobs = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": eos_id}
            knobs |= {} if name == "plain" else {"accept": accept}
            return jax.block_until_ready(generate(target, drafters[name], prompt, key, **knobs))

        plain = None
        key = jax.random.fold_in(root, number)
        # The acceptance of sampled decoding shows on sampled text; greedy text is a corner the target seldom visits.
        sampled = decode("plain", jax.random.fold_in(key, 1), Sampling(temperature=1.0))
        for name in drafters:
            shape = (name, *prompt.tokens_BS.shape)
            if shape not in warm:
                decode(name, key)
                warm.add(shape)
            began = time.perf_counter()
            ours = decode(name, key)
            seconds[name] += time.perf_counter() - began
            if name == "plain":
                plain = ours
                plain_tokens += int(np.sum(processes.fetch(ours.lengths_B)[:valid] - batch["lengths_B"][:valid]))
                continue
            host = processes.fetch(ours)
            same_B = np.all(host.tokens_BS == processes.fetch(plain.tokens_BS), axis=1)
            identical[name] += int(same_B[:valid].sum())
            models = target, drafts[name]
            _, agreement_B, positions_B = processes.fetch(
                teacher_forced(*models, plain.tokens_BS, prompt.lengths_B, plain.lengths_B)
            )
            overlap_B, _, overlapped_B = processes.fetch(
                teacher_forced(*models, sampled.tokens_BS, prompt.lengths_B, sampled.lengths_B)
            )
            parts[name].append(
                {
                    "accepted": host.accepted_BN.sum(1)[:valid],
                    "judged": host.judged_BN.sum(1)[:valid],
                    "drafted": host.drafted_B[:valid],
                    "committed": (host.lengths_B - batch["lengths_B"])[:valid],
                    "rounds": host.rounds_B[:valid],
                    "overlap_sum": overlap_B[:valid],
                    "agreement_sum": agreement_B[:valid],
                    "positions": positions_B[:valid],
                    "overlap_positions": overlapped_B[:valid],
                    "histogram": host.histogram_BM[:valid].sum(0),
                }
            )
            samples.setdefault(name, host)
        advance(valid)
    measured = {}
    for name, rows in parts.items():
        histogram = sum(row.pop("histogram") for row in rows)
        joined = {field: np.concatenate([row[field] for row in rows]) for field in rows[0]}
        counts = Counts(**joined, accepted_histogram=histogram)
        measured[name] = Measured(counts, seconds[name], identical[name], samples[name])
    plain = {"seconds": seconds["plain"], "tokens": plain_tokens, "draft_length": draft_length, "costs": costs}
    return measured, plain


def report_fields(
    measured: Mapping[str, Measured],
    plain: Mapping[str, Any],
    *,
    resamples: int,
    pairs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The "drafts", "paired" and "speed" of a report."""
    plain_rate = plain["tokens"] / plain["seconds"]
    speed: dict[str, Any] = {"plain_tokens_per_second": plain_rate, "draft_length": plain["draft_length"]}
    drafts = {name: summarize(result.counts, resamples=resamples) for name, result in measured.items()}
    for name, result in measured.items():
        rate, alpha = float(result.counts.committed.sum()) / result.seconds, drafts[name]["alpha"]
        speed[name] = {
            "tokens_per_second": rate,
            "speedup": rate / plain_rate,
            "identical_to_plain": result.identical,
            **({} if alpha is None else best_length(plain["costs"], name, alpha, plain["draft_length"])),
        }
    return {
        "drafts": drafts,
        "paired": {f"{a}-{b}": paired(measured[a].counts, measured[b].counts, resamples=resamples) for a, b in pairs},
        "speed": speed,
        "costs_in_seconds": plain["costs"],
    }
