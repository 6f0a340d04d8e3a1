"""What a target wrote by plain decoding, kept in a file: enough to count how often it agrees with guesses."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from adaspec_jax import data, files, models, reporting
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.evaluation import prompt_batches
from adaspec_jax.measuring.placing import rows_on
from adaspec_jax.measuring.tallies import encoded_prompts, room_for_prompts
from adaspec_jax.methods import Given
from adaspec_jax.program import called_as

_WORDS = {
    "target": "by another target than --target is",
    "tokenizer": "with another tokenizer than the target's",
    "tokens": "with other tokens left out: give it the same --draft",
    "ends": "with other ends of text than the target's files name now",
}


class Record(NamedTuple):
    """Requests and their answers at temperature 0, and on what terms these hold."""

    terms: Mapping[str, Any]  # as `terms_of` has them
    prompts: tuple[Prompt, ...]  # with their tokens; the text is not kept
    answers: tuple[tuple[int, ...], ...]  # with their ends of text
    cut: int  # prompts that lost their middle


def terms_of(target_name: str, given: Given, ends: data.Ends, *, max_new_tokens: int, **how: str) -> dict[str, Any]:
    """What an answer depends on beside its prompt; `how` is the type of weights and products."""
    return {
        "target": sums_of(target_name),
        "tokenizer": data.fingerprint(given.tokenizer),
        "tokens": given.target.config.num_tokens,
        "ends": ends.recorded,
        "max_new_tokens": max_new_tokens,
        **how,
    }


def sums_of(model_name: str) -> dict[str, str]:
    """SHA-256 of the files that make a model what it is, by their names."""
    directory = models.find_directory(model_name)
    weights = sorted(path for path in directory.iterdir() if path.suffix == ".safetensors")
    return {path.name: files.sha256(path) for path in (directory / "config.json", *weights)}


def recorded(
    given: Given,
    prompts: Sequence[Prompt],
    terms: Mapping[str, Any],
    *,
    batch_size: int,
    max_new_tokens: int,
    max_prompt_length: int,
    ends: data.Ends,
    mesh: Mesh,
) -> Record:
    """What the target, placed on the mesh, writes after these prompts by plain decoding."""
    encoded, cut = encoded_prompts(prompts, given, ends, room_for_prompts(given, max_new_tokens, max_prompt_length))
    longest = max(row.prompt_length for row in encoded)
    knobs = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature=0.0), "eos_id": ends}
    answers, place = [], rows_on(mesh)
    shortage = short_of_memory("decoding", "lower --batch_size or --max_new_tokens")
    tracked = reporting.track(len(encoded), description="plain decoding", unit="prompt")
    with shortage, sharding.over(mesh), tracked as progress:
        for rows in prompt_batches(encoded, batch_size, longest=longest, pad_id=ends.closing):
            prompt = Context(place(rows["tokens_BT"]), place(rows["lengths_B"]))
            made = processes.fetch(generate(given.target, NoDraft(), prompt, jax.random.key(0), **knobs))
            for row in range(rows["valid"]):
                answers.append(tuple(made.tokens_BS[row, rows["lengths_B"][row] : made.lengths_B[row]].tolist()))
            progress.advance(rows["valid"])
    kept = [
        each._replace(text="", tokens=tuple(row.prompt.tolist())) for each, row in zip(prompts, encoded, strict=True)
    ]
    return Record(terms, tuple(kept), tuple(answers), cut)


def write_record(path: str | os.PathLike, record: Record) -> None:
    """The record as a file that appears whole, with a sum by which it is known to be."""
    rows = [
        {"id": each.id, "category": each.category, "turn": each.turn, "prompt": each.tokens, "answer": answer}
        for each, answer in zip(record.prompts, record.answers, strict=True)
    ]
    said = json.loads(json.dumps({"terms": record.terms, "requests": rows, "prompts_cut": record.cut}))
    files.write_text(path, json.dumps(said | {"sha256": _sum(said)}, sort_keys=True) + "\n")


def read_record(path: str | os.PathLike, terms: Mapping[str, Any]) -> Record:
    """The record; UserError where it is none, is torn, or was made on other `terms`."""
    said = files.read_json(path, mend=_mend())
    if "requests" not in said or "sha256" not in said:
        raise UserError(f"{path} is no record of a target; {_mend()}")
    if said.pop("sha256") != _sum(said):
        raise UserError(f"the record {path} is torn: its content is not what it was written with; {_mend()}")
    for name, ours in json.loads(json.dumps(terms)).items():
        if (theirs := said["terms"].get(name)) != ours:
            words = _WORDS.get(name, f"with --{name} {theirs}, and here it is {ours}")
            raise UserError(f"the record {path} was made {words}; give it what it was made with, or record again")
    rows = said["requests"]
    prompts = [Prompt(row["id"], "", row["category"], row["turn"], tuple(row["prompt"])) for row in rows]
    return Record(said["terms"], tuple(prompts), tuple(tuple(row["answer"]) for row in rows), said["prompts_cut"])


def of_prompts(
    record: Record, path: str | os.PathLike, prompts: Sequence[Prompt], encoded: Sequence[data.Encoded]
) -> Record:
    """The record's first requests, under the names that these prompts have; UserError where they are others."""
    if len(prompts) > len(record.prompts):
        raise UserError(
            f"the record {path} has {len(record.prompts)} prompts, and {len(prompts)} are asked for; {_mend()}"
        )
    named = []
    for theirs, ours, row in zip(record.prompts, prompts, encoded, strict=False):
        if theirs.tokens != tuple(row.prompt.tolist()):
            raise UserError(f"the record {path} is of other prompts: {ours.id} is not what {theirs.id} was; {_mend()}")
        named.append(ours._replace(tokens=theirs.tokens))
    return record._replace(prompts=tuple(named), answers=record.answers[: len(named)])


def _sum(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _mend() -> str:
    return f"record it: {called_as('benchmark')} --record FILE"
