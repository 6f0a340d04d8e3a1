"""Files of questions, with their answers and the passages that were retrieved for them where they have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax.data.faults import read_each
from adaspec_jax.data.rows import Row, checked_row, read_rows
from adaspec_jax.errors import UserError

RAG = "rag"  # Spec-Bench's category


class Question(NamedTuple):
    """A question as a file has it."""

    id: str | int
    text: str
    passages: tuple[str, ...] = ()  # as the row has them
    answers: tuple[str, ...] = ()  # any of which is right; none where nobody says
    where: str = ""  # "FILE line 3"


def read_questions(path: str | Path, num: int | None = None, *, column: str = "question") -> list[Question]:
    """The first `num` questions of a file of rows, or of Spec-Bench's category "rag".

    A row has its question in `column`, and may have "passages" (a list of texts), "answers" (a list) or "answer", and
    "id". A row of Spec-Bench has them all in its one turn, passages a line each and the question in the last, and its
    answers in "reference". UserError with the line where something of that is not so.
    """
    rows, _ = read_rows(Path(path), ())
    if all("turns" in row and column not in row for row in rows):
        rows = [row for row in rows if row.get("category", RAG) == RAG]
        if not rows:
            raise UserError(f'{path}: no row is of the category "{RAG}", whose turns hold passages and a question')
        return read_each(enumerate(rows[:num], 1), lambda at: _of_turn(at[1], at[0]), where=lambda at: at[1].where)
    return read_each(
        enumerate(rows[:num], 1), lambda at: _of_columns(at[1], at[0], column), where=lambda at: at[1].where
    )


def _of_columns(row: Row, number: int, column: str) -> Question:
    checked_row(row, (column,), row.where)
    passages = row.get("passages") or []
    if not isinstance(passages, list) or not all(isinstance(text, str) and text.strip() for text in passages):
        raise UserError(f'{row.where}: column "passages" must be a list of texts')
    answers = row.get("answers", row.get("answer"))
    return _question(row, number, row[column], passages, answers)


def _of_turn(row: Row, number: int) -> Question:
    turns = row["turns"]
    text = turns[0] if isinstance(turns, list) and len(turns) == 1 and isinstance(turns[0], str) else ""
    *passages, question = [line.strip() for line in text.split("\n") if line.strip()] or [""]
    if not passages:
        raise UserError(f"{row.where}: a turn must hold passages, a line each, and the question in its last line")
    return _question(row, number, question, passages, row.get("reference"))


def _question(row: Row, number: int, text: str, passages: list[str], answers: Any) -> Question:
    name = row.get("id", row.get("question_id", number))
    if not isinstance(name, str | int):
        raise UserError(f"{row.where}: an id must be text or a number")
    different = tuple(dict.fromkeys(passages))
    return Question(name, text.strip(), different, tuple(dict.fromkeys(_texts(answers, row.where))), row.where)


def _texts(answers: Any, where: str) -> Iterator[str]:
    """Of nested lists, as Spec-Bench has them for each turn."""
    if isinstance(answers, str):
        yield answers
    elif isinstance(answers, list):
        for answer in answers:
            yield from _texts(answer, where)
    elif answers is not None:
        raise UserError(f"{where}: answers must be text, or a list of texts")
