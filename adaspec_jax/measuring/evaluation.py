"""The report of one method on a task's prompts, as `python -m adaspec_jax.evaluate` writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from adaspec_jax import data, reporting
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.costs import length_of
from adaspec_jax.measuring.measure import measure, report_fields
from adaspec_jax.measuring.pair import notes_on
from adaspec_jax.measuring.placing import placed, rows_on
from adaspec_jax.measuring.turns import Contender
from adaspec_jax.methods import Given, Method

BUCKETS = (64, 128, 256, 512, 1024, 2048)  # widths of prompts: few programs serve all
RESAMPLES = 10_000


def evaluate(
    given: Given,
    method: Method,
    examples: data.Source,
    *,
    batch_size: int,
    max_length: int,
    max_prompt_length: int,
    max_new_tokens: int,
    temperature: float,
    ends: data.Ends,
    seed: int,
    mesh: Mesh,
    accept: Callable[..., Any] | None = None,
    choose_length: bool = False,
) -> dict[str, Any]:
    """{"task", "environment", "data", "models", ...} with the drafter measured as "draft", by `report_fields`.

    `accept`, where given, takes the place of the method's own rule. `choose_length` as in `measure`; UserError where
    the method's drafter has no length to choose, and where prompt and answer are longer than a model's context.
    """
    method.check(given)
    lengths = {"max_length": max_length, "max_prompt_length": max_prompt_length}
    encoded, counts = data.encode(examples, given.tokenizer, eos_id=ends.closing, ends=ends.ids, **lengths)
    asked = max(row.prompt_length for row in encoded) + max_new_tokens
    check_contexts(given, asked, "lower --max_new_tokens or --max_prompt_length")
    batches = prompt_batches(encoded, batch_size, longest=max_length, pad_id=ends.closing)
    there = placed(given, mesh)
    contender = Contender(method.make(there), accept or method.accept)
    if choose_length and length_of(contender.drafter) is None:
        raise UserError(f"the method {method.name} has no length to choose; give one above 0")
    tracked = reporting.track(len(encoded), description="evaluation", unit="prompt")
    shortage = short_of_memory("decoding", "lower --batch_size or --max_new_tokens")
    with shortage, sharding.over(mesh), tracked as progress:
        measured, plain = measure(
            there.target,
            {"draft": contender},
            batches,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            eos_id=ends,
            seed=seed,
            choose_length=choose_length,
            place=rows_on(mesh),
            advance=progress.advance,
        )
    return {
        "task": examples.description["task"],
        "environment": environment_of(mesh),
        "data": {"evaluation": examples.description | counts, "tokenizer_sha256": data.fingerprint(given.tokenizer)},
        "notes": notes_on(given),
        "models": {"target": given.target.num_params, **({"draft": given.draft.num_params} if given.drafts else {})},
        **report_fields(measured, plain, resamples=RESAMPLES),
    }


def check_contexts(given: Given, tokens: int, remedy: str) -> None:
    """UserError where a model was not made for so many tokens of text."""
    given.target.check_context(tokens, "the target", remedy)
    for draft in given.drafts.values():
        draft.check_context(tokens, "the draft", remedy)


def prompt_batches(encoded: Sequence[data.Encoded], batch_size: int, *, longest: int, pad_id: int) -> list[dict]:
    """`data.prompt_batches` in few widths, none above `longest`."""
    buckets = [*(length for length in BUCKETS if length < longest), longest]
    return list(data.prompt_batches(encoded, batch_size, buckets=buckets, pad_id=pad_id))


def environment_of(mesh: Mesh) -> dict[str, Any]:
    """What the numbers depend on: machine, versions, and the devices used."""
    return reporting.environment(jax.devices()[0].device_kind) | {"devices": mesh.size}
