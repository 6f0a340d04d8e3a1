"""Files of prompts: one JSON object a line, ours or in the form of Spec-Bench's questions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax.data.rows import checked_row, read_rows
from adaspec_jax.errors import UserError

# Of Spec-Bench's questions, 80 are MT-bench's, in eight categories that its tables have as one.
_OF_MT_BENCH = frozenset("writing roleplay reasoning math coding extraction stem humanities".split())
_OF_SPEC_BENCH = ("translation", "summarization", "qa", "math_reasoning", "rag")
MULTI_TURN = "multi_turn"


class Prompt(NamedTuple):
    """What a request asks, and what it is called in a report."""

    id: str | int
    text: str
    category: str | None = None
    turn: int | None = None  # of a conversation, from 1
    tokens: tuple[int, ...] | None = None  # as they are to be read; None: those of the text
    answer: str | None = None  # what a good answer says, to be scored by


def read_prompts(path: str | Path, num: int | None = None) -> list[Prompt]:
    """The first `num` prompts of a file of rows with "prompt", or with "turns", of which the first is taken.

    "id" (or Spec-Bench's "question_id") and "category" go into reports; without an id it is the row's number. UserError
    with that number where there is no text. Where a file has Spec-Bench's own categories, MT-bench's are "multi_turn".
    """
    rows, _ = read_rows(Path(path), ())
    one = as_one([row.get("category") for row in rows])
    found = []
    for number, row in enumerate(rows[:num], 1):
        turns = row.get("turns")
        if "prompt" not in row and isinstance(turns, list) and turns:
            row = row | {"prompt": turns[0]}
        row = checked_row(row, ("prompt",), f"{path} row {number}")
        name, category = row.get("id", row.get("question_id", number)), row.get("category")
        if not isinstance(name, str | int) or not isinstance(category, str | None):
            raise UserError(f"{path} row {number}: an id must be text or a number, and a category text")
        found.append(Prompt(name, row["prompt"], MULTI_TURN if category in one else category))
    return found


def as_one(categories: Iterable[Any]) -> frozenset[str]:
    """Which of a file's categories are reported as `MULTI_TURN`: MT-bench's, beside those that Spec-Bench has more."""
    return _OF_MT_BENCH if any(category in _OF_SPEC_BENCH for category in categories) else frozenset()
