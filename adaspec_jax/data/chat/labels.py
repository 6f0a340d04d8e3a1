"""Which tokens of a rendered conversation are the assistant's.

By the template's generation marks where it has them; else by what the template renders of the conversation's
beginnings: what it writes when the assistant is to speak, and what stands there once the turn is over.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaspec_jax.data.chat.conversation import (
    ASSISTANT,
    BEGIN_OF_REASONING,
    END_OF_REASONING,
    ROLES,
    Conversation,
    Message,
    without_reasoning,
)
from adaspec_jax.data.chat.template import Refused, Template

UNANSWERED = "no turn of the assistant's that answers somebody"
_OPENED = re.compile(rf"{BEGIN_OF_REASONING}\s*({END_OF_REASONING}\s*)?$")
_THOUGHT = re.compile(rf"\s*({BEGIN_OF_REASONING}.*?{END_OF_REASONING})\s*", re.DOTALL)


@dataclass(frozen=True)
class Labels:
    """What is learnt of a conversation."""

    turns: str = "every"  # or "last"; "each": every turn of the assistant's as the last one of a row of its own
    end_of_turn: bool = True  # the mark that closes a turn, too
    reasoning: str = "keep"  # or "drop" it from the text, or leave it there "unlabelled"


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens."""

    ids: list[int]
    turns: list[tuple[int, int]]  # tokens [first, past the last] of each turn that is learnt
    text: str
    offsets: list[tuple[int, int]]  # characters of each token
    messages: Sequence[Message]  # as they were rendered


def rendered(conversation: Conversation, template: Template, labels: Labels, *, special: Collection[int]) -> Rendered:
    """The conversation with its labels; `Refused`, with the reason, where they cannot be told.

    `special`: ids of tokens that are marks, and no text.
    """
    messages: Sequence[Message] = conversation.messages
    if labels.reasoning == "drop":
        messages = without_reasoning(messages)
    answered = conversation.answered()
    if not answered:
        raise Refused(UNANSWERED)
    whole = _tokenised(template.text(messages, conversation.tools), messages, template)
    turns = _by_marks(template, messages, conversation.tools, whole)
    several = turns is not None and len(turns) > len(answered)  # marks may make more runs than one of a turn
    if turns is not None and labels.turns == "last":
        turns = _of_the_last(template, messages[: answered[-1]], conversation.tools, whole, turns)
    if turns is None:
        turns = _by_prefixes(template, messages, conversation.tools, whole, answered, labels.turns == "last")
        turns = [_closed(whole, turn, special, with_mark=True) for turn in turns]
    if not several and not all(_is_said(whole.ids[slice(*turn)], special, template.tokenizer) for turn in turns):
        raise Refused("the template shows nothing of a turn of the assistant's: it may know no tool calls")
    if not labels.end_of_turn:
        turns = [_closed(whole, turn, special, with_mark=False) for turn in turns]
    return dataclasses.replace(whole, turns=[turn for turn in turns if turn[0] < turn[1]])


def rendered_prompt(messages: Sequence[Message], tools: Any, template: Template) -> Rendered:
    """What precedes the assistant's next turn; `Refused` where the template refuses it."""
    return _tokenised(template.text(messages, tools, answer_follows=True), messages, template)


def _tokenised(text: str, messages: Sequence[Message], template: Template) -> Rendered:
    encoded = template.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return Rendered(encoded["input_ids"], [], text, [tuple(span) for span in encoded["offset_mapping"]], messages)


def opened_reasoning(prompt: str) -> str:
    """What a rendered prompt has opened of the assistant's reasoning: a part of the turn that the answer lacks."""
    found = _OPENED.search(prompt)
    return found[0] if found else ""


def labels_of(whole: Rendered, labels: Labels) -> np.ndarray:
    """[T] bool."""
    found = np.zeros(len(whole.ids), bool)
    for first, end in whole.turns:
        found[first:end] = True
    found[:1] = False  # nothing comes before it
    if labels.reasoning == "unlabelled":
        for first, end in whole.turns:
            start, stop = whole.offsets[first][0], whole.offsets[end - 1][1]
            for match in _THOUGHT.finditer(whole.text, start, stop):
                within = _tokens_of(whole.offsets, *match.span())
                found[slice(*within)] = False
    return found


def roles_of(whole: Rendered) -> np.ndarray:
    """[T] int8: whose words each token is of, by `ROLES`; -1 where it is the template's."""
    found, place = np.full(len(whole.ids), -1, np.int8), 0
    for turn in whole.messages:
        words = turn["content"].rpartition(END_OF_REASONING)[2].strip()
        start = whole.text.find(words, place) if words else -1
        if start >= 0:
            place = start + len(words)
            first, end = _tokens_of(whole.offsets, start, place)
            found[first:end] = ROLES.index(turn["role"])
    for first, end in whole.turns:
        found[first:end] = ROLES.index(ASSISTANT)
    return found


def _by_marks(template: Template, messages: Any, tools: Any, whole: Rendered) -> list[tuple[int, int]] | None:
    """Runs of transformers' own mask; None without marks, and where the mask is all zeros, which says nothing."""
    if not template.marks_answers:
        return None
    ids, mask = template.marked(messages, tools)
    if ids != whole.ids or not any(mask):
        return None
    edges = np.flatnonzero(np.diff([0, *mask, 0])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _of_the_last(
    template: Template, before: Any, tools: Any, whole: Rendered, turns: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Those runs that come after the last prompt: a turn may have several, of what it says and what closes it."""
    asked = _OPENED.sub("", template.text(before, tools, answer_follows=True))
    if not whole.text.startswith(asked):
        return turns[-1:]
    return [turn for turn in turns if whole.offsets[turn[0]][0] >= len(asked)] or turns[-1:]


def _is_said(ids: Sequence[int], special: Collection[int], tokenizer: Any) -> bool:
    """Whether there is more than marks and blanks."""
    return bool(tokenizer.decode([i for i in ids if i not in special]).strip())


def _by_prefixes(
    template: Template, messages: Sequence[Message], tools: Any, whole: Rendered, answered: list[int], last: bool
) -> list[tuple[int, int]]:
    turns = []
    for i in answered[-1:] if last else answered:
        asked = template.text(messages[:i], tools, answer_follows=True)
        own = template.text(messages[: i + 1], tools)
        turns.append(_tokens_of(whole.offsets, *_span(whole.text, asked, own, template.tokenizer.eos_token)))
    return turns


def _span(text: str, asked: str, own: str, end_of_text: str | None) -> tuple[int, int]:
    """Characters of a turn: from where the template lets the assistant speak to where it goes on after it.

    `asked` is what precedes the turn, `own` the conversation up to it. A template may leave a turn's reasoning out once
    another turn follows, and may close what it renders with an end of text: both are allowed for. `Refused` where the
    whole goes on otherwise than its beginnings.
    """
    # Where the prompt opens the reasoning, the turn includes it; where both drop it, there is none.
    before = next((b for b in (asked, _OPENED.sub("", asked)) if text.startswith(b)), None)
    start = next((b for b in (before, asked, _OPENED.sub("", asked)) if b is not None and own.startswith(b)), None)
    if before is None or start is None:
        raise Refused("the template renders a conversation's beginning otherwise than the same turns within the whole")
    turn = own[len(start) :]
    shown = [turn]
    if thought := _THOUGHT.match(turn):  # and as many of the blanks after it as the template takes for its own
        shown += [turn[at:] for at in range(thought.end(1), thought.end() + 1)]
    if end_of_text:
        shown += [t.removesuffix(end_of_text) for t in shown]
    rest = text[len(before) :]
    found = next((t for t in shown if t and rest.startswith(t)), None)
    if found is None:
        raise Refused("the template renders a turn of the assistant's otherwise once another follows")
    return len(before), len(before) + len(found)


def _tokens_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The tokens [first, past the last] that hold a character of text[start:end]."""
    held = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
    return (held[0], held[-1] + 1) if held else (0, 0)


def _closed(whole: Rendered, turn: tuple[int, int], special: Collection[int], *, with_mark: bool) -> tuple[int, int]:
    """The turn up to the first of the marks that close it, with or without that; all of it where none does."""
    mark = _closing_mark(whole, turn, special)
    return turn if mark is None else (turn[0], mark + with_mark)


def _closing_mark(whole: Rendered, turn: tuple[int, int], special: Collection[int]) -> int | None:
    """The first mark of those that only blanks and marks follow within the turn."""
    first, end = turn
    mark = None
    for i in range(end - 1, first - 1, -1):
        if whole.ids[i] in special:
            mark = i
        elif whole.text[slice(*whole.offsets[i])].strip():
            break
    return mark


def notes_on(template: Template, ends: Collection[int]) -> list[str]:
    """What the user of a template should know, where a model's text ends at these ids."""
    mark = closing_mark(template)
    if mark is None or mark in ends:
        return []
    return [
        f"the chat template closes turns with {template.tokenizer.convert_ids_to_tokens(mark)} ({mark}), which is no "
        "end of text by the model's files: its answers may run on; add it to eos_token_id in generation_config.json"
    ]


def closing_mark(template: Template) -> int | None:
    """The token that closes the assistant's turns; None where it is no special one."""
    turns = ({"role": "user", "content": "Hi"}, {"role": ASSISTANT, "content": "Hi"})
    special = frozenset(i for i, token in template.tokenizer.added_tokens_decoder.items() if token.special)
    try:
        whole = rendered(Conversation(turns), template, Labels(), special=special)
    except Refused:
        return None
    first, end = whole.turns[-1]
    return whole.ids[end - 1] if whole.ids[end - 1] in special else None
