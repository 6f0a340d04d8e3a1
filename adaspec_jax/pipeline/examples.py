"""Which examples a run trains on, and which it is measured on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from adaspec_jax import data
from adaspec_jax.config import Chat, Data
from adaspec_jax.data.contamination import plain
from adaspec_jax.errors import UserError

SMALLEST_SHARE = 10  # at most one row of so many is held out of a file


def training_and_held_out(spec: Data, seed: int) -> tuple[data.Source, data.Source, int]:
    """Both, and how many of the former were left out because the latter have their prompts.

    `seed` of the run, where generated tasks have none of their own, and of the split where one file gives both.
    """
    if spec.mixture:
        return _mixed(spec, seed)
    drawn = seed if spec.seed is None else spec.seed
    train = _examples(spec, drawn, spec.train_split, "train", spec.train_rows, spec.num_train)
    if spec.held_out and spec.evaluation is None:
        return *split(train, spec.held_out, drawn), 0
    held_out = _examples(spec, drawn, spec.evaluation_split, "evaluation", spec.evaluation_rows, spec.num_evaluation)
    if spec.contamination == "allow":
        return train, held_out, 0
    train, removed = data.without_shared(train, held_out)
    return train, held_out, removed


def held_out_of(settings: Mapping[str, Any]) -> tuple[Data, data.Source]:
    """What a run with these recorded settings was measured on; KeyError or TypeError where they do not say it."""
    recorded = dict(settings["data"])
    chat = Chat(**_known(Chat, recorded.pop("chat", {})))
    spec = dataclasses.replace(Data(**_known(Data, recorded)), chat=chat)
    seed = settings["seed"] if spec.seed is None else spec.seed
    if spec.mixture or (spec.held_out and spec.evaluation is None):
        return spec, training_and_held_out(spec, seed)[1]
    key = "evaluation"
    return spec, _examples(spec, seed, spec.evaluation_split, key, spec.evaluation_rows, spec.num_evaluation)


def split(source: data.Source, held_out: int, seed: int) -> tuple[data.Source, data.Source]:
    """Two parts with no prompt in common; the second of `held_out` rows, of at most a tenth of all, or a few more."""
    rows_of: dict[str, list[int]] = {}
    for i, example in enumerate(source):
        rows_of.setdefault(plain(example.prompt), []).append(i)
    prompts, wanted = list(rows_of), min(held_out, len(source) // SMALLEST_SHARE)
    if not wanted or len(prompts) < 2:
        raise UserError(
            f"{source.description['name']} has {len(source)} rows with {len(prompts)} prompts, too few to hold some of "
            "them out: give another file as data.evaluation"
        )
    taken: set[int] = set()
    for i in np.random.default_rng([seed, 1]).permutation(len(prompts)):
        if len(taken) >= wanted:
            break
        taken.update(rows_of[prompts[i]])
    parts = ([i for i in range(len(source)) if i not in taken], sorted(taken))
    return tuple(_part(source, rows, name) for rows, name in zip(parts, ("trained on", "held out"), strict=True))


def _mixed(spec: Data, seed: int) -> tuple[data.Source, data.Source, int]:
    """All parts together: rows to train on as often as each part's weight says, held-out rows taken in turn."""
    trains, held_outs, removed = [], [], 0
    for text in spec.mixture:
        name, weight = weighted(text)
        train, held_out, shared = training_and_held_out(_alone(spec, name), seed)
        trains.append(_weighed(train, weight, seed))
        held_outs.append(held_out)
        removed += shared
    examples = tuple(example for source in trains for example in source)
    in_turn = (example for row in zip_longest(*held_outs) for example in row if example is not None)
    train, held_out = _together(spec, trains, examples), _together(spec, held_outs, tuple(in_turn))
    if spec.contamination == "allow":
        return train, held_out, removed
    train, shared = data.without_shared(train, held_out)  # of another part's
    return train, held_out, removed + shared


_OFTEN = 1_000_000  # times that a part's rows may come in an epoch


def weighted(text: str) -> tuple[str, float]:
    """A part of a mixture: its name, and how often its rows come; UserError where that is no number above 0."""
    name, star, weight = text.rpartition("*")
    try:
        found = (name, float(weight)) if star else (text, 1.0)
    except ValueError:
        found = name, math.nan
    if not 0 < found[1] <= _OFTEN:
        raise UserError(
            f'data.mixture: "{text}" has no weight above 0 and up to {_OFTEN:,} after the *; write NAME or NAME*WEIGHT'
        )
    return found


def _alone(spec: Data, name: str) -> Data:
    """The keys of one part: a task with its own splits, or a file or data set of which some is held out."""
    alone = dataclasses.replace(spec, mixture=())
    if name not in data.TASKS or name == data.CHAT:
        return dataclasses.replace(alone, train=name, held_out=spec.held_out or spec.num_evaluation)
    splits = data.TASKS[name].splits
    if spec.evaluation_split in splits:
        return dataclasses.replace(alone, task=name, held_out=0)
    return dataclasses.replace(alone, task=name, held_out=spec.held_out or spec.num_evaluation)


def _weighed(source: data.Source, weight: float, seed: int) -> data.Source:
    """Every row as many whole times as the weight has, and a part of them, drawn by seed, once more."""
    whole, rest = divmod(weight, 1)
    more = np.random.default_rng([seed, 2]).permutation(len(source))[: round(rest * len(source))]
    rows = [*range(len(source))] * int(whole) + sorted(more.tolist())
    if not rows:
        raise UserError(f"data.mixture: the weight {weight:g} leaves nothing of {source.description['name']}")
    kept = _part(source, rows, source.description.get("part") or "trained on")
    return data.Source(kept.examples, kept.description | {"weight": weight})


def _together(spec: Data, parts: list[data.Source], examples: tuple[data.AnyExample, ...]) -> data.Source:
    described = {
        "task": "+".join(dict.fromkeys(part.description["task"] for part in parts)),
        "split": None,
        "kind": "mixture",
        "name": ", ".join(spec.mixture),
        "content_sha256": None,
        "seed": None,
        "rows": len(examples),
        "rows_available": sum(part.description["rows_available"] for part in parts),
        "slice": None,
        "examples_sha256": data.digest(examples),
        "parts": [part.description for part in parts],
    }
    return data.Source(examples, described)


def _part(source: data.Source, rows: list[int], name: str) -> data.Source:
    examples = tuple(source[i] for i in rows)
    described = {"rows": len(rows), "part": name, "examples_sha256": data.digest(examples)}
    return data.Source(examples, source.description | described)


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """As the fields have them: JSON has lists for tuples, and a report of before may lack some."""
    names = {item.name for item in dataclasses.fields(kind)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in names}


def _examples(spec: Data, seed: int, split: str, key: str, rows: str | None, num: int) -> data.Source:
    path = getattr(spec, key)
    own = next((name for name in ("prompt_column", "text_column") if getattr(spec, name) is not None), None)
    if own is None and spec.task == data.CHAT:
        own = "task"
    if own and path is None:
        remedy = ", or --config.data.held_out to a number of rows" if key == "evaluation" else ""
        what = "the task chat" if own == "task" else f"data.{own}"
        raise UserError(
            f"{what} needs a file: set --config.data.{key} to a .jsonl file of such rows, or to hf:NAME:SPLIT{remedy}"
        )
    if not own and spec.task == "columns":
        raise UserError(
            "say which columns hold the text: data.prompt_column and data.answer_column, or data.text_column"
        )
    if not own and spec.task not in data.TASKS:
        data.load_examples(spec.task)  # raises, naming the nearest task
    generated = not own and path is None and data.TASKS[spec.task].generate is not None
    return data.load_examples(
        spec.task,
        split,
        path=path,
        prompt_column=spec.prompt_column,
        answer_column=spec.answer_column,
        text_column=spec.text_column,
        assistants=spec.chat.assistant_roles,
        rows=rows,
        num=num if generated else None,
        seed=seed,
    )
