"""Conversations, and rows that are tokens already, become token rows with labels; what cannot is counted and said."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaspec_jax.data.chat.conversation import ROLES, Conversation, Tokenised
from adaspec_jax.data.chat.labels import UNANSWERED, Labels, labels_of, rendered, rendered_prompt, roles_of
from adaspec_jax.data.chat.template import Endless, Refused, Template
from adaspec_jax.data.encoded import Encoded
from adaspec_jax.data.faults import in_words
from adaspec_jax.errors import UserError

MOST_LEFT_OUT = 0.01  # of the rows: beyond that something is wrong with them, or with how they are read


@dataclass(frozen=True)
class Chat:
    """How conversations become rows."""

    template: Template
    labels: Labels = Labels()

    def special_ids(self, ends: Collection[int]) -> frozenset[int]:
        """Tokens that are marks and no text: the tokenizer's special ones, and the ends of text."""
        added = self.template.tokenizer.added_tokens_decoder.items()
        return frozenset(i for i, token in added if token.special) | frozenset(ends)


class Tally:
    """What became of the rows: counts for the report, and why some were left out."""

    def __init__(self, total: int) -> None:
        self.total, self.counts = total, Counter(examples=total)
        self.left_out: dict[str, list[str]] = {}  # reason -> where

    def leave_out(self, reason: str, where: str) -> None:
        self.left_out.setdefault(reason, []).append(where)

    def check(self, remedy: str = "") -> None:
        """UserError where more than 1 % were left out, with the commonest reason and the first row of that kind."""
        number = sum(map(len, self.left_out.values()))
        if number <= MOST_LEFT_OUT * self.total:
            return
        reason, places = max(self.left_out.items(), key=lambda item: len(item[1]))
        kinds = len(self.left_out)
        others = f", for {kinds} reasons, {len(places)} for this one" if kinds > 1 else ""
        stand = in_words([place for found in self.left_out.values() for place in found])
        raise UserError(
            f"{places[0]}: {reason}; {number} of {self.total} conversations cannot be used{others}, and more than 1 % "
            f"is refused{remedy or '; mend them, or take them out'}: {stand}"
        )

    @property
    def record(self) -> dict[str, int | dict[str, int]]:
        """For the report."""
        left_out = {reason: len(places) for reason, places in self.left_out.items()}
        return dict(self.counts) | ({"left_out": left_out} if left_out else {})


def numbered_rows(
    examples: Sequence[Conversation | Tokenised],
    chat: Chat | None,
    *,
    max_length: int,
    ends: Collection[int] = (),
    vocabulary: int | None = None,
) -> tuple[list[tuple[int, Encoded]], dict[str, Any]]:
    """(number of the example, row with labels) in order, and counts.

    A row is cut to `max_length`. Left out, by reason: what the template refuses, what has no label (within that
    length), an empty turn. UserError where that is more than 1 %; where no turn of the assistant's that is learnt ends
    with one of `ends`, so that the draft would never learn to stop; and for ids from `vocabulary` on.
    """
    tally, closed = Tally(len(examples)), 0
    rows: list[tuple[int, Encoded]] = []
    special = chat.special_ids(ends) if chat else frozenset()
    for number, example in enumerate(examples):
        try:
            pieces = list(_rows_of(example, chat, special, vocabulary))
        except Endless as endless:
            raise UserError(f"{example.where}: {endless}") from None
        except Refused as refused:
            tally.leave_out(str(refused), example.where)
            continue
        before = len(rows)
        for ids, labels, roles in pieces:
            closed += bool(set(np.asarray(ids)[labels].tolist()) & set(ends))
            tokens, kept = np.asarray(ids[:max_length], np.int32), labels[:max_length]
            if not kept.any():
                continue
            tally.counts["truncated"] += len(ids) > max_length
            roles = None if roles is None else roles[:max_length]
            rows.append((number, Encoded(tokens, int(np.argmax(kept)), kept, roles)))
        if len(rows) == before:
            within = f"within {max_length} tokens" if any(np.any(labels) for _, labels, _ in pieces) else "at all"
            tally.leave_out(f"no label {within}", example.where)
    tally.check(next((_REMEDIES[part] for part in _REMEDIES for reason in tally.left_out if part in reason), ""))
    if chat and chat.labels.end_of_turn and ends and rows and not closed and isinstance(examples[0], Conversation):
        raise UserError(
            "no turn of the assistant's ends with an end of text: the chat template closes turns with none of "
            f"{sorted(ends)}, so that a draft would never learn to stop; give another template, name its mark as "
            "eos_token_id in the model's generation_config.json, or set data.chat.end_of_turn=False"
        )
    tally.counts["dropped"] = sum(map(len, tally.left_out.values()))
    tally.counts["tokens"] = sum(len(row.tokens) for _, row in rows)
    tally.counts["supervised_tokens"] = sum(row.num_labels for _, row in rows)
    return rows, tally.record


_REMEDIES = {
    "once another follows": "; data.chat.turns=each makes a row of every turn, as it is rendered when it is the last",
    UNANSWERED: "; answers.source=target with target.epochs=0 has the target answer what the user says",
}


def rows_of_answers(
    turns: Sequence[tuple[Sequence[int], Sequence[int]]], chat: Chat, *, max_length: int, ends: Collection[int]
) -> list[Encoded]:
    """Rows of a conversation whose answers are somebody's own tokens, given as (prompt, answer) of its turns.

    One row, as long as each prompt goes on from the turn before it; where the template or the tokenizer writes earlier
    turns otherwise, another begins. Labels are as `chat.labels` says, and rows cut to `max_length`.
    """
    rows: list[tuple[list[int], list[bool]]] = []
    for number, (prompt, answer) in enumerate(turns):
        learnt = [chat.labels.turns != "last" or number + 1 == len(turns)] * len(answer)
        if answer and not chat.labels.end_of_turn and answer[-1] in ends:
            learnt[-1] = False
        before, labels = rows[-1] if rows and chat.labels.turns != "each" else ([], [])
        goes_on = bool(before) and list(prompt[: len(before)]) == before
        labels = labels + [False] * (len(prompt) - len(before)) if goes_on else [False] * len(prompt)
        row = ([*prompt, *answer], labels + learnt)
        rows[len(rows) - goes_on :] = [row]
    kept = [(np.asarray(ids[:max_length], np.int32), np.asarray(labels[:max_length], bool)) for ids, labels in rows]
    return [Encoded(ids, int(np.argmax(labels)), labels) for ids, labels in kept if labels.any()]


def numbered_prompts(
    examples: Sequence[Conversation | Tokenised], chat: Chat | None, *, max_length: int, vocabulary: int | None = None
) -> tuple[list[tuple[int, Encoded]], dict[str, Any]]:
    """(number of the example, what precedes the assistant's first answer as a server reads it), and counts.

    Longer ones are left out. UserError as `numbered_rows` for what the template refuses, and where none is left.
    """
    tally = Tally(len(examples))
    rows: list[tuple[int, Encoded]] = []
    for number, example in enumerate(examples):
        try:
            ids, roles = _first_prompt(example, chat, vocabulary)
        except Endless as endless:
            raise UserError(f"{example.where}: {endless}") from None
        except Refused as refused:
            tally.leave_out(str(refused), example.where)
            continue
        if len(ids) < max_length:
            rows.append((number, Encoded(np.asarray(ids, np.int32), len(ids), roles=roles)))
    tally.check()
    if not rows:
        raise UserError(
            f"none of {len(examples)} conversations has a prompt shorter than max_length={max_length}; raise it"
        )
    tally.counts["dropped"] = len(examples) - len(rows)
    return rows, tally.record


def _first_prompt(
    example: Conversation | Tokenised, chat: Chat | None, vocabulary: int | None
) -> tuple[Sequence[int] | np.ndarray, np.ndarray | None]:
    """(ids, roles) of what precedes the assistant's first answer; `Refused` where the template refuses it."""
    if isinstance(example, Tokenised):
        _check_ids(example, vocabulary)
        if not example.labels.any():
            raise Refused("no label at all")
        return example.ids[: int(np.argmax(example.labels))], None
    answered = example.answered()
    until = answered[0] if answered else len(example.messages)
    _check_said(example, ("user",))  # the target's own answers take the place of the others'
    assert chat is not None, "conversations come with how they are written"
    whole = rendered_prompt(example.messages[:until], example.tools, chat.template)
    return whole.ids, roles_of(whole)


def _rows_of(
    example: Conversation | Tokenised, chat: Chat | None, special: Collection[int], vocabulary: int | None
) -> Iterator[tuple[Sequence[int] | np.ndarray, np.ndarray, np.ndarray | None]]:
    """(ids, labels, roles) of a row, or of one for each of its turns."""
    if isinstance(example, Tokenised):
        _check_ids(example, vocabulary)
        yield example.ids, example.labels, None
        return
    _check_said(example)
    assert chat is not None, "conversations come with how they are written"
    parts, labels = [example], chat.labels
    if labels.turns == "each":
        labels = dataclasses.replace(labels, turns="last")
        answered = example.answered()
        parts = [dataclasses.replace(example, messages=example.messages[: i + 1]) for i in answered] or [example]
    for part in parts:
        whole = rendered(part, chat.template, labels, special=special)
        yield whole.ids, labels_of(whole, labels), roles_of(whole)


def _check_said(example: Conversation, roles: Collection[str] = ROLES) -> None:
    try:
        example.check_said(roles)
    except ValueError as empty:
        raise Refused(str(empty)) from None


def _check_ids(example: Tokenised, vocabulary: int | None) -> None:
    """UserError for ids from `vocabulary` on."""
    if vocabulary is not None and example.ids.max() >= vocabulary:
        raise UserError(
            f"{example.where}: the id {example.ids.max()} is none of the tokenizer's {vocabulary}: the row was made "
            "with another tokenizer"
        )
