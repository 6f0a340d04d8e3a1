"""Examples of any kind become token rows: text and its answer, conversations, rows that are tokens already."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adaspec_jax.data.chat.conversation import Conversation
from adaspec_jax.data.chat.encoding import Chat, numbered_prompts, numbered_rows
from adaspec_jax.data.chat.labels import Labels
from adaspec_jax.data.chat.template import template_of
from adaspec_jax.data.encoded import Encoded
from adaspec_jax.data.tasks import AnyExample, Example
from adaspec_jax.data.texts import answer_ids, begun, ended_at
from adaspec_jax.data.tokenization import opening
from adaspec_jax.data.tokenizer_identity import rows_needed
from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTS = "examples dropped truncated prompts_cut tokens supervised_tokens".split()
MARKS = ("begun_already", "ended_already")  # counted where there are such rows
PROMPT_TAIL = 32  # tokens that a prompt cut in the middle keeps at its end, where instructions stand


def encode(
    examples: Sequence[AnyExample],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    eos_id: int,
    ends: Collection[int] = (),
    max_prompt_length: int = 0,
    chat: Chat | None = None,
) -> tuple[list[Encoded], dict[str, Any]]:
    """Token rows in order, and counts for the report: examples, dropped, truncated, tokens, supervised_tokens.

    Text as `encode_text` says; conversations (by `chat`, default: the tokenizer's own template) and rows that are
    tokens already as `data.chat.numbered_rows` says, which also counts what is left out, by reason.
    """
    knobs: dict[str, Any] = {"eos_id": eos_id, "ends": ends, "max_prompt_length": max_prompt_length}

    def of_turns(group: Sequence[Any]) -> tuple[list[tuple[int, Encoded]], dict[str, Any]]:
        of_tokens: dict[str, Any] = {"ends": {eos_id, *ends}, "vocabulary": rows_needed(tokenizer)}
        return numbered_rows(group, chat or chat_of(group, tokenizer), max_length=max_length, **of_tokens)

    return _by_kind(examples, lambda group: encode_text(group, tokenizer, max_length=max_length, **knobs), of_turns)


def encode_for_prompts(
    examples: Sequence[AnyExample],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    chat: Chat | None = None,
    **of_text: Any,
) -> tuple[list[Encoded], dict[str, Any]]:
    """As `encode`, of which only the prompts are to be used: of a conversation, what precedes its first answer."""

    def of_turns(group: Sequence[Any]) -> tuple[list[tuple[int, Encoded]], dict[str, Any]]:
        vocabulary = rows_needed(tokenizer)
        return numbered_prompts(group, chat or chat_of(group, tokenizer), max_length=max_length, vocabulary=vocabulary)

    return _by_kind(examples, lambda group: encode_text(group, tokenizer, max_length=max_length, **of_text), of_turns)


def chat_of(
    examples: Sequence[AnyExample],
    tokenizer: PreTrainedTokenizerBase,
    template: str | None = None,
    options: str | Mapping | None = None,
    labels: Labels = Labels(),  # noqa: B008 (frozen)
    *,
    date: datetime.date | None = None,
) -> Chat | None:
    """How conversations among the examples become rows, by `template_of`; None where there is none."""
    if not any(isinstance(example, Conversation) for example in examples):
        return None
    return Chat(template_of(tokenizer, template, options, date=date), labels)


def _by_kind(examples: Sequence[AnyExample], of_text: Callable, of_turns: Callable) -> tuple[list[Encoded], dict]:
    """The rows in the examples' order, and the counts of all together; each kind is encoded as a whole."""
    numbers: dict[bool, list[int]] = {True: [], False: []}
    for number, example in enumerate(examples):
        numbers[isinstance(example, Example)].append(number)
    found: list[tuple[int, Encoded]] = []
    total: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for is_text, places in numbers.items():
        if places or (is_text and not examples):
            rows, counts = (of_text if is_text else of_turns)([examples[i] for i in places])
            found += [(places[number], row) for number, row in rows]
            left_out.update(counts.pop("left_out", {}))
            total.update(counts)
    rows = [row for _, row in sorted(found, key=lambda numbered: numbered[0])]
    counts = {name: int(total[name]) for name in (*COUNTS, *MARKS) if name in COUNTS or total[name]}
    return rows, counts | ({"left_out": dict(left_out)} if left_out else {})


def encode_text(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    eos_id: int,
    ends: Collection[int] = (),
    max_prompt_length: int = 0,
) -> tuple[list[tuple[int, Encoded]], dict[str, int]]:
    """(number of the example, token row) in order, and counts for the report.

    A prompt longer than `max_prompt_length`, where that is not 0, loses tokens from its middle (`prompts_cut`).

    A prompt's tokens never depend on its answer, and an answer's are those of the joint text where that allows
    (`texts.answer_ids`). A row begins with what the tokenizer begins every text with, ends with `eos_id`, and is cut to
    `max_length`; a cut row has lost its end of text. Text that carries the begin, or `eos_id` or one of `ends` as its
    end, gets no second one (`begun_already`, `ended_already`; blanks after such an end are dropped). An example with no
    supervised token left, or no prompt token, is dropped. UserError where all are.
    """
    begin = opening(tokenizer)
    prompts, answers = answer_ids([e.prompt for e in examples], [e.answer for e in examples], tokenizer)
    counts = Counter(examples=len(examples))
    rows = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = begun(prompt, begin)
        counts["begun_already"] += bool(begin) and len(row) == len(prompt)
        cut = 0 < max_prompt_length < len(row)
        if cut:
            tail = min(PROMPT_TAIL, max_prompt_length // 2)
            row = row[: max_prompt_length - tail] + row[len(row) - tail :]
        counts["prompts_cut"] += cut
        if not 0 < len(row) < max_length:
            continue
        ended = ended_at(answer, {eos_id, *ends}, tokenizer)
        counts["ended_already"] += ended is not None
        tokens = np.array([*row, *(answer[:ended] if ended else [*answer, eos_id])], np.int32)
        counts["truncated"] += len(tokens) > max_length
        rows.append((number, Encoded(tokens[:max_length], len(row))))
    if not rows:
        raise UserError(
            f"none of {len(examples)} examples has a prompt shorter than max_length={max_length}; raise it, or set "
            "max_prompt_length to cut prompts in the middle"
        )
    counts["dropped"] = len(examples) - len(rows)
    counts["tokens"] = sum(len(row.tokens) for _, row in rows)
    counts["supervised_tokens"] = sum(row.num_labels for _, row in rows)
    return rows, dict(counts)
