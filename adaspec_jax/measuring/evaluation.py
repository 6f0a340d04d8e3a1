"""The report of one method on a task's prompts, as `python -m adaspec_jax.evaluate` writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data, reporting
from adaspec_jax.decoding import Accept, Sampling
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.devices.in_use import bytes_in_use
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.costs import priced, rounds_priced
from adaspec_jax.measuring.measure import measure, report_fields
from adaspec_jax.measuring.own_turns import TurnPrompt, turn_prompts
from adaspec_jax.measuring.pair import notes_on
from adaspec_jax.measuring.placing import placed, rows_on
from adaspec_jax.measuring.turns import Contender
from adaspec_jax.methods import A_DRAFT, Given, Method

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
    sampling: Sampling,
    ends: data.Ends,
    seed: int,
    mesh: Mesh,
    accept: Callable[..., Any] | None = None,
    choose_length: bool = False,
    chat: data.chat.Chat | None = None,
) -> dict[str, Any]:
    """{"task", "environment", "data", "models", ...} with the drafter measured as "draft", by `report_fields`.

    Of conversations (rendered by `chat`) every turn is a prompt, whose context is the target's own answers to those
    before it; "turns" then has the draft's figures of each.

    `accept`, where given, takes the place of the method's own rule. `choose_length` as in `measure`; UserError where
    the method's drafter has no length to choose, and where prompt and answer are longer than a model's context.
    """
    method.check(given)
    if accept is None:
        method.check_sampling(sampling)
    there = placed(given, mesh)
    turns = None
    if chat is not None:
        check_contexts(given, max_length + max_new_tokens, "lower --max_length or --max_new_tokens")
        knobs = {"max_new_tokens": max_new_tokens, "sampling": sampling, "ends": ends, "seed": seed}
        prompts = _turns(there.target, examples, chat, batch_size, longest=max_length, mesh=mesh, **knobs)
        encoded = [data.Encoded(np.asarray(prompt.tokens, np.int32), len(prompt.tokens)) for prompt in prompts]
        turns = np.array([prompt.turn for prompt in prompts])
        asked = sum(len(talk.awaited()) for talk in examples)
        counts = {"conversations": len(examples), "turns": len(prompts), "turns_asked": asked}
    else:
        lengths = {"max_length": max_length, "max_prompt_length": max_prompt_length}
        knobs = {"eos_id": ends.closing, "ends": ends.ids}
        encoded, counts = data.encode_for_prompts(examples, given.tokenizer, **knobs, **lengths)
        asked = max(row.prompt_length for row in encoded) + max_new_tokens
        check_contexts(given, asked, "lower --max_new_tokens or --max_prompt_length")
    batches = prompt_batches(encoded, batch_size, longest=max_length, pad_id=ends.closing)
    shape_BT, how = batches[0]["tokens_BT"].shape, {"max_new_tokens": max_new_tokens, "sampling": sampling}
    there = dataclasses.replace(there, costs=partial(rounds_priced, shapes_BT=(shape_BT,), mesh=mesh, **how))
    contender = Contender(method.make(there), accept or method.accept)
    if choose_length and not priced(contender.drafter):
        raise UserError(f"the method {method.name} has no length to choose; give one above 0")
    tracked = reporting.track(len(encoded), description="evaluation", unit="prompt", memory=bytes_in_use)
    shortage = short_of_memory("decoding", "lower --batch_size or --max_new_tokens")
    with shortage, sharding.over(mesh), tracked as progress:
        measured, plain = measure(
            there.target,
            {"draft": contender},
            batches,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            eos_id=ends,
            seed=seed,
            choose_length=choose_length,
            place=rows_on(mesh),
            advance=progress.advance,
            doing=progress.doing,
        )
    return {
        "task": examples.description["task"],
        "environment": environment_of(mesh),
        "data": {"evaluation": examples.description | counts, "tokenizer_sha256": data.fingerprint(given.tokenizer)},
        "notes": [*(data.chat.notes_on(chat.template, ends) if chat else []), *_notes(given, method, contender.accept)],
        "models": _sizes(given, method),
        **report_fields(measured, plain, resamples=RESAMPLES),
        **({} if turns is None else {"turns": _by_turn(measured["draft"].counts, turns)}),
    }


def _sizes(given: Given, method: Method) -> dict[str, int]:
    """Parameters of the models that ran."""
    drafts = [each.model for each in given.foreign.values()] if method.translates else list(given.drafts.values())
    drafts = [given.heads[name] for name in method.heads_in(given)] or drafts
    found = {"target": given.target.num_params, **({"draft": drafts[0].num_params} if drafts else {})}
    takes_two = A_DRAFT not in method.needs and given.between is not None
    return found | ({"qualifier": given.between.num_params} if takes_two else {})


def _notes(given: Given, method: Method, accept: Accept) -> list[str]:
    notes = notes_on(given)
    if getattr(accept, "lossless", method.lossless):
        return notes
    what = "the rule" if method.lossless else f"the method {method.label}"
    return [*notes, f"{what} is lossy: answers do not follow the target's law"]


def _turns(target, examples: data.Source, chat, batch_size: int, *, seed: int, mesh: Mesh, **how) -> list[TurnPrompt]:
    tracked = reporting.track(len(examples), description="the target's own turns", unit="conversation")
    with short_of_memory("decoding", "lower --batch_size"), sharding.over(mesh), tracked as progress:
        key, place = jax.random.key(seed), rows_on(mesh)
        shared = {"batch_size": batch_size, "place": place, "advance": progress.advance}
        return turn_prompts(target, list(examples), chat, key=key, **shared, **how)


def _by_turn(counts: reporting.Counts, turns: np.ndarray) -> dict[str, Any]:
    """The draft's figures over each conversation's first turn, second turn and so on."""
    of_turn = {int(turn): np.flatnonzero(turns == turn) for turn in np.unique(turns)}
    return {str(turn): reporting.summarize(counts.of(rows), resamples=RESAMPLES) for turn, rows in of_turn.items()}


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
