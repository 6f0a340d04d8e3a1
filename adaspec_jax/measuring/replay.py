"""What methods would make of a recorded text: real drafters, real rounds, and a target that says it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data, reporting
from adaspec_jax.decoding import Asks, Context, Sampling, generate
from adaspec_jax.decoding.recorded import RecordedTarget
from adaspec_jax.decoding.types import asks_of
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.bench import entries, table
from adaspec_jax.measuring.evaluation import check_contexts, prompt_batches
from adaspec_jax.measuring.figures import Tally, part_of
from adaspec_jax.measuring.placing import rows_on
from adaspec_jax.measuring.records import Record
from adaspec_jax.measuring.tallies import Size
from adaspec_jax.measuring.turns import PLAIN, Batch, Contender, same_text
from adaspec_jax.measuring.verdict import most_of
from adaspec_jax.methods import METHODS, Given, Method

_NOTHING = Asks(layers=(), likeliest=0)
_COUNTS = ("accepted", "judged", "rounds", "histogram")


def replay(
    given: Given,
    methods: Sequence[Method],
    record: Record,
    *,
    batch_sizes: Sequence[int],
    max_new_tokens: int,
    ends: data.Ends,
    mesh: Mesh,
    skip: bool = False,
) -> dict[str, Any]:
    """What `bench` would count on the record's requests at temperature 0, without a pass of the target.

    All figures of time are null, methods stand in the order of tokens per target call, and so says the verdict. A
    method that does not follow from the text is refused with a `UserError`, or skipped where `skip`. `given` is placed
    on the mesh.
    """
    silent = dataclasses.replace(given, target=_target(np.zeros((1, 1), np.int32), given), costs=None)
    entered, skipped = entries(methods, silent)
    skipped = {label: _unmet(why, label, methods, given) for label, why in skipped.items()}
    contenders = {PLAIN: Contender(METHODS[PLAIN].make(silent))}
    for label, (method, theirs) in list(entered.items()):
        contenders[label] = Contender(method.make(theirs), method.accept)
        if why := _reads_more(method, contenders[label]):
            skipped[label] = why
            del contenders[label], entered[label]
    if skipped and not skip:
        label, why = next(iter(skipped.items()))
        raise UserError(f"the method {label} cannot be replayed: it {why}")
    longest = max(len(prompt.tokens) for prompt in record.prompts)
    check_contexts(
        given, longest + max_new_tokens, "record with the draft given, so that prompts are cut to its context"
    )
    knobs = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature=0.0), "eos_id": ends}
    count = len(record.prompts) * len(batch_sizes) * len(contenders)
    shortage = short_of_memory("decoding", "lower --batch_size or --max_new_tokens")
    tracked = reporting.track(count, description="replay", unit="prompt")
    with shortage, sharding.over(mesh), tracked as progress:
        sizes = {}
        for size in batch_sizes:
            batches = _batches(record, size, max_new_tokens, ends, given, mesh)
            tallies = {n: _counted(each, batches, knobs, progress.advance) for n, each in contenders.items()}
            unknown = dict.fromkeys(contenders, {"compile_seconds": None, "peak_bytes": None})
            sizes[size] = Size(tallies, unknown, dict.fromkeys(contenders))
    tallies = sizes[batch_sizes[0]].tallies
    most = most_of(tallies)
    ranked = {label: entered[label] for label in most.ranked if label != PLAIN}
    sizes = {n: size._replace(tallies={m: size.tallies[m] for m in (PLAIN, *ranked)}) for n, size in sizes.items()}
    found = table(sizes, ranked, skipped, record.prompts, settled=False)  # no text was compared with another
    return found | {"verdict": most.record, "prompts_cut": record.cut}


def timed(replayed: Mapping[str, Any], measured: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The replayed report with what was then measured in its places, and where the counts of both differ, a line each.

    They differ where sums that are rounded otherwise decide a near-tie otherwise.
    """
    notes = []
    for label, m in measured["methods"].items():
        for name in _COUNTS:
            if m[name] != (before := replayed["methods"][label][name]):
                notes.append(f"{label}: {name} {before} as replayed and {m[name]} as measured, by near-ties")
    methods = replayed["methods"] | measured["methods"]
    kept = {"methods": methods, "replayed": replayed["verdict"], "prompts_cut": replayed["prompts_cut"]}
    return {**measured, **kept}, notes


def _target(text_BS: Any, given: Given) -> RecordedTarget:
    return RecordedTarget(text_BS, given.target.config.vocab_size)


def _unmet(why: str, label: str, methods: Sequence[Method], given: Given) -> str:
    """`why`, and that it is the record's fault where the target itself would do."""
    method = next(method for method in methods if method.label == label)
    return why if method.lacks(given) else f"{why}, which a record is not"


def _reads_more(method: Method, contender: Contender) -> str | None:
    """What a method takes that does not follow from the text; None where nothing is."""
    if not method.lossless:
        return "is lossy: it would write another text than the record's"
    if asks_of(contender.drafter) != _NOTHING:
        return "reads what the target says after guesses (the `asks` of its drafter), which a record does not hold"
    return None


def _batches(
    record: Record, size: int, max_new_tokens: int, ends: data.Ends, given: Given, mesh: Mesh
) -> list[tuple[RecordedTarget, Batch, np.ndarray]]:
    """The batches that `bench` would decode, each with its target and with its text [B, T + new]."""
    encoded = [data.Encoded(np.asarray(each.tokens, np.int32), len(each.tokens)) for each in record.prompts]
    longest, place, done, found = max(row.prompt_length for row in encoded), rows_on(mesh), 0, []
    for number, rows in enumerate(prompt_batches(encoded, size, longest=longest, pad_id=ends.closing)):
        lengths_B, valid = rows["lengths_B"], rows["valid"]
        text_BS = np.zeros((size, rows["tokens_BT"].shape[1] + max_new_tokens), np.int32)
        for row in range(size):
            at = done + min(row, valid - 1)  # the last is repeated to fill a batch
            text = [*record.prompts[at].tokens, *record.answers[at]]
            text_BS[row, : len(text)] = text
        prompt = Context(place(rows["tokens_BT"]), place(lengths_B))
        batch = Batch(prompt, jax.random.fold_in(jax.random.key(0), number), lengths_B, valid)
        found.append((_target(place(text_BS), given), batch, text_BS))
        done += valid
    return found


def _counted(contender: Contender, batches, knobs: Mapping[str, Any], advance) -> Tally:
    parts = []
    for target, batch, text_BS in batches:
        made = generate(target, contender.drafter, batch.prompt, batch.key, accept=contender.accept, **knobs)
        made = processes.fetch(made)
        parts.append(part_of(made, batch, same_text(made, Context(text_BS, batch.lengths_B), batch), 0.0, 0.0))
        advance(batch.valid)
    return Tally.of(parts)
