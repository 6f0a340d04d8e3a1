"""Files of prompts: one JSON object a line, ours or in the form of Spec-Bench's questions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from adaspec_jax.data.rows import checked_row, read_rows
from adaspec_jax.errors import UserError


class Prompt(NamedTuple):
    """What a request asks, and what it is called in a report."""

    id: str | int
    text: str
    category: str | None = None
    turn: int | None = None  # of a conversation, from 1
    tokens: tuple[int, ...] | None = None  # as they are to be read; None: those of the text


def read_prompts(path: str | Path, num: int | None = None) -> list[Prompt]:
    """The first `num` prompts of a file of rows with "prompt", or with "turns", of which the first is taken.

    "id" (or Spec-Bench's "question_id") and "category" go into reports; without an id it is the row's number. UserError
    with that number where there is no text.
    """
    rows, _ = read_rows(Path(path), ())
    found = []
    for number, row in enumerate(rows[:num], 1):
        turns = row.get("turns")
        if "prompt" not in row and isinstance(turns, list) and turns:
            row = row | {"prompt": turns[0]}
        row = checked_row(row, ("prompt",), f"{path} row {number}")
        name, category = row.get("id", row.get("question_id", number)), row.get("category")
        if not isinstance(name, str | int) or not isinstance(category, str | None):
            raise UserError(f"{path} row {number}: an id must be text or a number, and a category text")
        found.append(Prompt(name, row["prompt"], category))
    return found
