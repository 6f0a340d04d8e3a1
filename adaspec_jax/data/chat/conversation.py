"""Rows of chat data: conversations in the forms that files have them in, and rows that somebody else tokenised."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adaspec_jax.data.prompts import check_given
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.files import parsed

# Columns that hold turns, what a turn says, and who.
_COLUMNS = ("messages", "conversations")
_QUESTIONS = "turns"  # a list of what the user says: Spec-Bench, MT-bench
_TOKENISED = ("input_ids", "loss_mask")
_SPEAKER, _SAYS = ("role", "from"), ("content", "value")
ROLES = ("system", "developer", "user", "assistant", "tool")
# Names that files of before OpenAI's form have for them.
_OTHER_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "function": "tool",
    "observation": "tool",
}
ASSISTANT = "assistant"
_INSTRUCTING = ("system", "developer")
_REASONING = ("reasoning_content", "reasoning", "thinking")  # keys that templates read a turn's reasoning from
BEGIN_OF_REASONING, END_OF_REASONING = "<think>", "</think>"

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Turns in the form that chat templates read, and the tools that were on offer."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    where: str = field(default="", compare=False)  # file and line, for what is said of it
    id: str | int | None = None
    category: str | None = None

    @property
    def prompt(self) -> str:
        """What is said before the first answer to somebody."""
        first = next(iter(self.answered()), len(self.messages))
        return "\n".join(turn["content"] for turn in self.messages[:first])

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said in it, for a tokenizer to be trained on."""
        return tuple(turn["content"] for turn in self.messages)

    @property
    def content(self) -> list[Any]:
        """All of it, as JSON has it."""
        return [[dict(turn) for turn in self.messages], *([[dict(tool) for tool in self.tools]] if self.tools else [])]

    def awaited(self) -> list[int]:
        """Before which messages an answer is due: where the file has one in words, or goes on or ends without one.

        Calls of tools are no such answers: what the tools said to them is in the file.
        """
        due, asked = [], False
        for i, turn in enumerate(self.messages):
            if asked and (turn["role"] == "user" or is_in_words(turn)):
                due.append(i)
            if turn["role"] not in _INSTRUCTING:  # which may stand between question and answer
                asked = turn["role"] in ("user", "tool")
        return [*due, *([len(self.messages)] if asked else [])]

    def check_said(self, roles: Collection[str] = ROLES) -> None:
        """ValueError, with the turn's number, where somebody of these roles says nothing and calls no tool."""
        for number, turn in enumerate(self.messages, 1):
            says = turn["content"].strip() or turn.get("tool_calls") or any(turn.get(key) for key in _REASONING)
            if not says and turn["role"] in roles and turn["role"] in ("user", ASSISTANT):
                raise ValueError(f"turn {number} ({turn['role']}) is empty")

    def answered(self) -> list[int]:
        """Which messages are the assistant's and answer somebody."""
        asked = next((i for i, turn in enumerate(self.messages) if turn["role"] in ("user", "tool")), None)
        turns = range(0 if asked is None else asked, len(self.messages))
        return [i for i in turns if self.messages[i]["role"] == ASSISTANT]


@dataclass(frozen=True, eq=False)
class Tokenised:
    """A row that somebody else tokenised: ids, and which of them are labels."""

    ids: np.ndarray  # [T] int32
    labels: np.ndarray  # [T] bool
    where: str = ""

    @property
    def prompt(self) -> str:
        """The ids before the first label."""
        return " ".join(map(str, self.ids[: max(int(np.argmax(self.labels)), 1)]))

    @property
    def several(self) -> bool:
        """Whether something follows the first answer: turns whose text nobody knows."""
        return not self.labels[int(np.argmax(self.labels)) :].all()

    @property
    def texts(self) -> tuple[str, ...]:
        raise UserError(f'{self.where}: a row of "input_ids" has no text to train a tokenizer on; set tokenizer.init')

    @property
    def content(self) -> list[Any]:
        return [self.ids.tolist(), self.labels.astype(int).tolist()]


def form_of(row: Mapping[str, Any]) -> str | None:
    """The column that tells the form of a row of chat data; None where there is none."""
    return next((name for name in (*_COLUMNS, _QUESTIONS, _TOKENISED[0]) if name in row), None)


def read_row(
    row: Mapping[str, Any], where: str = "", *, assistants: Sequence[str] = (ASSISTANT,)
) -> Conversation | Tokenised:
    """The row as it is meant; UserError, with `where`, for what no conversation can hold.

    `assistants`: further roles that count as the assistant's.
    """
    where = where or getattr(row, "where", "") or "a row"
    form = form_of(row)
    if form is None:
        has = ", ".join(f'"{name}"' for name in row) or "none"
        raise UserError(
            f'{where}: no column "messages", "conversations", "turns" or "input_ids"; the row has the columns {has}'
        )
    if form == _TOKENISED[0]:
        return _tokenised(row, where)
    turns = row[form]
    if not isinstance(turns, list | tuple) or not turns:
        raise UserError(f'{where}: column "{form}" must be a list of turns, and not an empty one')
    if form == _QUESTIONS:
        for turn in turns:
            check_given(str(turn), where)
        turns = [{"role": "user", "content": turn} for turn in turns]
    names = _OTHER_NAMES | {name: ASSISTANT for name in assistants}
    messages = tuple(_message(turn, f"{where}: {form}[{i}]", names) for i, turn in enumerate(turns))
    if form == _COLUMNS[1] and messages[0]["role"] != "system" and isinstance(row.get("system"), str) and row["system"]:
        messages = ({"role": "system", "content": row["system"]}, *messages)
    name, category = row.get("id", row.get("question_id")), row.get("category")
    named: dict[str, Any] = {
        "id": name if isinstance(name, str | int) else None,
        "category": category if isinstance(category, str) else None,
    }
    return Conversation(messages, _tools(row.get("tools"), where), where, **named)


def is_in_words(turn: Message) -> bool:
    """Whether it is an answer of the assistant's, and no call of tools."""
    return turn["role"] == ASSISTANT and not turn.get("tool_calls")


def without_reasoning(messages: Sequence[Message]) -> list[Message]:
    """The turns as they are shown to the user."""
    return [_without_reasoning(turn) if turn["role"] == ASSISTANT else turn for turn in messages]


def _without_reasoning(turn: Message) -> Message:
    kept = {key: value for key, value in turn.items() if key not in _REASONING}
    _, mark, answer = kept["content"].rpartition(END_OF_REASONING)
    return kept | {"content": answer.lstrip("\n")} if mark else kept


def _message(turn: Any, where: str, names: Mapping[str, str]) -> Message:
    if not isinstance(turn, Mapping):
        raise UserError(f'{where} must be an object with "role" and "content", as {{"role": "user", "content": "Hi"}}')
    speaker, says = (next((key for key in keys if key in turn), None) for keys in (_SPEAKER, _SAYS))
    if speaker is None or not isinstance(turn[speaker], str):
        raise UserError(f'{where} does not say whose turn it is: no "role" (or "from")')
    role = names.get(turn[speaker], turn[speaker])
    if role not in ROLES:
        known = [*ROLES, *names]
        raise UserError(
            f'{where} has the role "{turn[speaker]}"{did_you_mean(turn[speaker], known)}; roles that are the '
            "assistant's can be added with data.chat.assistant_roles"
        )
    kept = {key: value for key, value in turn.items() if key not in (speaker, says) and value is not None}
    calls = _calls(kept.pop("tool_calls", None), where)
    content = _text(turn.get(says) if says else None, where)
    return {"role": role, "content": content, **kept, **({"tool_calls": calls} if calls else {})}


def _text(content: Any, where: str) -> str:
    """Text, or the text parts of a list joined by line breaks [ours]; UserError for other parts."""
    if content is None:
        return ""
    parts = content if isinstance(content, list | tuple) else [content]
    texts = []
    for part in parts:
        kind = part.get("type", "text" if "text" in part else None) if isinstance(part, Mapping) else None
        text = part if isinstance(part, str) else part.get("text") if kind == "text" else None
        if not isinstance(text, str):
            named = f'"{kind}"' if kind else type(part).__name__
            raise UserError(f"{where} holds a part of type {named}; only text can be read, so leave this row out")
        texts.append(text)
    text = "\n".join(texts)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where} holds half of a surrogate pair, which is not text")
    return text


def _calls(calls: Any, where: str) -> list[Mapping[str, Any]]:
    """Tool calls with their arguments as objects: OpenAI's form has them as JSON in text, which templates do not."""
    if not calls:
        return []
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in calls):
        raise UserError(f'{where} has "tool_calls" that are no list of objects')
    read: list[Mapping[str, Any]] = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UserError(f'{where} has a tool call without "function": {{"name": ..., "arguments": ...}}')
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _json(arguments or "{}", f'{where}: the "arguments" of the tool call {function["name"]}')
        function = {**function, "arguments": arguments}
        read.append({**call, "function": function} if "function" in call else function)
    return read


def _tools(tools: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """The column "tools": a list of JSON schemas, or such a list as text."""
    if isinstance(tools, str):
        tools = _json(tools, f'{where}: column "tools"') if tools.strip() else None
    if not tools:
        return ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UserError(f'{where}: column "tools" must be a list of objects, each the JSON schema of a function')
    return tuple(tools)


def _json(text: str, what: str) -> Any:
    try:
        return parsed(text)
    except ValueError as error:
        raise UserError(f"{what} is not JSON ({error})") from None


def _tokenised(row: Mapping[str, Any], where: str) -> Tokenised:
    """UserError where ids and mask are not of one length, or are no numbers."""
    for column in _TOKENISED:
        value = row.get(column)
        if not isinstance(value, list | tuple) or not all(isinstance(v, int) for v in value):
            raise UserError(f'{where}: column "{column}" must be a list of whole numbers')
    ids, mask = (row[column] for column in _TOKENISED)
    if len(ids) != len(mask):
        raise UserError(f'{where}: "input_ids" has {len(ids)} entries and "loss_mask" {len(mask)}')
    if len(ids) < 2 or min(ids) < 0 or max(ids) >= 2**31:
        raise UserError(f'{where}: "input_ids" must hold two ids or more, none below 0')
    if not set(mask) <= {0, 1}:
        raise UserError(f'{where}: "loss_mask" must hold 0 and 1 alone (true and false)')
    labels = np.asarray(mask, bool)
    labels[0] = False  # nothing comes before it
    return Tokenised(np.asarray(ids, np.int32), labels, where)
