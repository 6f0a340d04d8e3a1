"""One table of methods: every method and plain decoding on the same prompts, taken in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data, reporting
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Sampling
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.evaluation import check_contexts, prompt_batches
from adaspec_jax.measuring.figures import Tally, counted, figures, part_of, request_rows
from adaspec_jax.measuring.placing import placed, rows_on
from adaspec_jax.measuring.programs import decoding_program, prefill_program
from adaspec_jax.measuring.turns import PLAIN, Contender, same_text, take_turns
from adaspec_jax.methods import A_DRAFT, METHODS, Given, Method

MEASURED_HOW = {
    "tokens_per_target_call": "committed tokens / target calls, pooled over rounds, bonus token included, prefill not",
    "ci95": "of tokens_per_target_call, bootstrap over prompts",
    "mean_over_requests": "the mean of each request's own tokens per target call",
    "accepted_at": "share accepted at each depth, of the rounds that judged a guess there",
    "tokens_per_second": "without prefill, which is timed apart, and without compilation",
    "speedup": "tokens per second over plain decoding's in the same run, taken in turn",
    "speedup_ci95": "bootstrap over the batches, a method's and plain decoding's times of one batch kept together",
    "compile_seconds": "tracing and compiling the decoding program for all shapes of prompts",
    "peak_bytes": "of a device, by the compiler's plan: arguments, temporaries and outputs of the decoding program",
    "identical_to_plain": "requests with plain decoding's text, token for token; null at temperature > 0",
    "seconds": "of the batch a request was in, prefill included",
    "vllm": "vLLM's names and definitions; guesses past the end of a text are not counted as drafted",
}


def bench(
    given: Given,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    *,
    batch_sizes: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    ends: data.Ends,
    mesh: Mesh,
    seed: int = 0,
    max_prompt_length: int = 0,
) -> dict[str, Any]:
    """{"methods": {name: M or {"skipped": why}}, "plain": M}: M as `MEASURED_HOW` has it, for the first batch size.

    M also has them for each of `batch_sizes`, per category and per request. UserError where prompt and answer are
    longer than a model's context. The mesh's rows divide every batch size.
    """
    encoded = _encoded(prompts, given, ends, max_prompt_length)
    longest = max(row.prompt_length for row in encoded)
    check_contexts(given, longest + max_new_tokens, "lower --max_new_tokens or --max_prompt_length")
    there = placed(given, mesh)
    entered, skipped = entries(methods, there)
    contenders = {PLAIN: Contender(METHODS[PLAIN].make(given))}
    contenders |= {label: Contender(method.make(theirs), method.accept) for label, (method, theirs) in entered.items()}
    sampling = Sampling(temperature=temperature)
    decoding = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": ends}
    tracked = reporting.track(len(prompts) * len(batch_sizes), description="benchmark", unit="prompt")
    shortage, sizes = short_of_memory("decoding", "lower --batch_size or --max_new_tokens"), {}
    with shortage, sharding.over(mesh), tracked as progress:
        for size in batch_sizes:
            batches = prompt_batches(encoded, size, longest=longest, pad_id=ends.closing)
            how = {"key": jax.random.key(seed), "place": rows_on(mesh), "advance": progress.advance}
            sizes[size] = _one_size(there.target, contenders, batches, decoding, **how)
    lossless = {PLAIN: True} | {label: method.lossless for label, (method, _) in entered.items()}
    knobs = {label: {**method.knobs, **method.chosen} for label, (method, _) in entered.items()}
    found = {}
    for label in contenders:
        of_sizes = {str(size): _figures(*made, label, sampling) for size, made in sizes.items()}
        tally, plain = (sizes[batch_sizes[0]][0][name] for name in (label, PLAIN))
        found[label] = {
            "lossless": lossless[label],
            "knobs": knobs.get(label, {}),
            **of_sizes[str(batch_sizes[0])],
            "score": None,
            "categories": _categories(tally, plain, prompts, greedy=sampling.greedy),
            "batch_sizes": of_sizes,
            "requests": request_rows(tally, prompts),
            **({"turns": _turns(tally, prompts, greedy=sampling.greedy)} if prompts[0].turn else {}),
        }
    plain = found.pop(PLAIN)
    return {"methods": found | {label: {"skipped": why} for label, why in skipped.items()}, "plain": plain}


def entries(methods: Sequence[Method], given: Given) -> tuple[dict[str, tuple[Method, Given]], dict[str, str]]:
    """({label: method and what it is made of}, {name: why it is skipped}), plain decoding left out.

    Of several drafts the smallest goes by the method's own name, each other one by NAME@DRAFT.
    """
    entered, skipped = {}, {}
    for method in methods:
        if method.name == PLAIN:
            continue
        if lack := method.lacks(given):
            skipped[method.label] = lack
            continue
        entered[method.label] = method, given
        for name in list(given.drafts)[1:] if A_DRAFT in method.needs else ():
            alone = dataclasses.replace(given, drafts={name: given.drafts[name]})
            if not method.lacks(alone):
                entered[f"{method.label}@{name}"] = method, alone
    return entered, skipped


def _encoded(prompts: Sequence[Prompt], given: Given, ends: data.Ends, max_prompt_length: int) -> list[data.Encoded]:
    """The prompts in their order, none left out."""
    if prompts[0].tokens is not None:
        return [data.Encoded(np.asarray(prompt.tokens, np.int32), len(prompt.tokens)) for prompt in prompts]
    examples = [data.Example(prompt.text, "") for prompt in prompts]
    whole = {"max_length": 2**31 - 1, "max_prompt_length": max_prompt_length}
    encoded, counts = data.encode(examples, given.tokenizer, eos_id=ends.closing, ends=ends.ids, **whole)
    if counts["dropped"]:
        raise UserError(f"{counts['dropped']} of the prompts have no tokens")
    return encoded


def _one_size(target, contenders: Mapping[str, Contender], batches, knobs, *, key, place, advance):
    """({label: Tally}, {label: compile_seconds and peak_bytes}) of one batch size."""
    decoding = {label: decoding_program(target, contender, **knobs) for label, contender in contenders.items()}
    prefill = {label: prefill_program(target, contender, **knobs) for label, contender in contenders.items()}
    ways = {(label, "decode"): program for label, program in decoding.items()}
    ways |= {(label, "prefill"): program for label, program in prefill.items()}
    parts: dict[str, list[dict]] = {label: [] for label in contenders}
    for batch, turns in take_turns(ways, batches, key, place=place):
        host = {label: processes.fetch(turns[label, "decode"].made) for label in contenders}
        for label, made in host.items():
            times = turns[label, "decode"].seconds, turns[label, "prefill"].seconds
            parts[label].append(part_of(made, batch, same_text(made, host[PLAIN], batch), *times))
        advance(batch.valid)
    machine = {
        label: {"compile_seconds": program.compile_seconds, "peak_bytes": program.peak_bytes}
        for label, program in decoding.items()
    }
    return {label: Tally.of(rows) for label, rows in parts.items()}, machine


def _figures(tallies, machine, label: str, sampling: Sampling) -> dict[str, Any]:
    return figures(tallies[label], tallies[PLAIN], greedy=sampling.greedy) | machine[label]


def _turns(tally: Tally, prompts: Sequence[Prompt], *, greedy: bool) -> dict[str, Any]:
    """What the requests say that are a conversation's first turn, its second and so on."""
    turns = np.array([prompt.turn for prompt in prompts])
    return {str(turn): counted(tally, np.flatnonzero(turns == turn), greedy=greedy) for turn in np.unique(turns)}


def _categories(tally: Tally, plain: Tally, prompts: Sequence[Prompt], *, greedy: bool) -> dict[str, Any]:
    """What the requests of each category say; their speed-up only where each was decoded alone."""
    found = {}
    for category in dict.fromkeys(prompt.category for prompt in prompts if prompt.category is not None):
        rows = np.flatnonzero([prompt.category == category for prompt in prompts])
        found[category] = counted(tally, rows, greedy=greedy)
        if len(tally.seconds) == len(prompts):
            ours, plains = (side.tokens[rows].sum() / side.decoding_seconds[rows].sum() for side in (tally, plain))
            found[category]["speedup"] = float(ours / plains)
    return found
