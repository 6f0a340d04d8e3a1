"""Files of prompts: rows of our own, or questions in the form of Spec-Bench, MT-bench and SPEED-Bench."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax.data.faults import read_each
from adaspec_jax.data.hub import PREFIX, Unavailable, parse, rows_from_hub
from adaspec_jax.data.rows import Row, checked_row, read_rows
from adaspec_jax.errors import UserError

# Of Spec-Bench's questions, 80 are MT-bench's, in eight categories that its tables have as one.
_OF_MT_BENCH = frozenset("writing roleplay reasoning math coding extraction stem humanities".split())
_OF_SPEC_BENCH = ("translation", "math_reasoning")  # its other own ones are SPEED-Bench's too, beside MT-bench's
MULTI_TURN = "multi_turn"
# What SPEED-Bench's public files say in the place of questions that they may not pass on.
_WITHHELD = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE"


class Prompt(NamedTuple):
    """What a request asks, and what it is called in a report."""

    id: str | int
    text: str
    category: str | None = None
    turn: int | None = None  # of a conversation, from 1
    tokens: tuple[int, ...] | None = None  # as they are to be read; None: those of the text
    answer: str | None = None  # what a good answer says, to be scored by


def read_prompts(path: str | Path, num: int | None = None) -> list[Prompt]:
    """The first `num` prompts of a file; see `first_and_spread`."""
    return first_and_spread(path, num, 0)[0]


def first_and_spread(path: str | Path, num: int | None, more: int) -> tuple[list[Prompt], list[Prompt]]:
    """The first `num` prompts of a file of rows with "prompt", or with "turns", of which the first is taken; and `more`
    that stand evenly over the rest, because files are often in the order of their categories.

    `path` may be "hf:NAME:CONFIGURATION:SPLIT". "id" (or "question_id", as Spec-Bench, MT-bench and SPEED-Bench have
    it) and "category" go into reports; without an id it is the row's number. UserError with that number where there is
    no text in one of the first; among the rest such rows are passed over. Where a file has Spec-Bench's own categories,
    MT-bench's are "multi_turn".
    """
    rows = _rows(path)
    one = as_one([row.get("category") for row in rows])
    numbered = enumerate(rows[:num], 1)
    first = read_each(numbered, lambda at: _prompt(at[1], at[0], one, path), where=lambda at: f"{path} row {at[0]}")
    left, spread = range(len(first), len(rows)), []
    for place in range(min(more, len(left))):
        number = left[(2 * place + 1) * len(left) // (2 * min(more, len(left)))]
        with contextlib.suppress(UserError):
            spread.append(_prompt(rows[number], number + 1, one, path))
    return first, spread


def _prompt(row: Row, number: int, one: frozenset[str], path: str | Path) -> Prompt:
    turns, where = row.get("turns"), f"{path} row {number}"
    if "prompt" not in row and isinstance(turns, list) and turns:
        row = Row(row | {"prompt": turns[0]}, row.where)
    row = checked_row(row, ("prompt",), where)
    check_given(row["prompt"], where)
    name, category = row.get("id", row.get("question_id", number)), row.get("category")
    if not isinstance(name, str | int) or not isinstance(category, str | None):
        raise UserError(f"{where}: an id must be text or a number, and a category text")
    return Prompt(name, row["prompt"], MULTI_TURN if category in one else category)


def check_given(text: str, where: str) -> None:
    """`UserError` for a question of SPEED-Bench that is not there: a benchmark would measure on its placeholder."""
    if _WITHHELD in text:
        raise UserError(
            f"{where}: SPEED-Bench's public files do not hold this question; fetch all of them with its own "
            "preparing script, and give the file that it writes"
        )


def _rows(path: str | Path) -> Sequence[Row]:
    if not str(path).startswith(PREFIX):
        return read_rows(Path(path), ())[0]
    try:
        rows = rows_from_hub(parse(str(path)))
    except Unavailable as reason:
        raise UserError(f"no prompts from {path}: {reason}. Mend it: give a file of them") from None
    return [checked_row(row, (), f"{path} row {number}") for number, row in enumerate(rows, 1)]


def as_one(categories: Iterable[Any]) -> frozenset[str]:
    """Which of a file's categories are reported as `MULTI_TURN`: MT-bench's, beside those that Spec-Bench has more."""
    return _OF_MT_BENCH if any(category in _OF_SPEC_BENCH for category in categories) else frozenset()
