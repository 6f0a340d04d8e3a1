"""What the models of a Speculative RAG are told, as text or as a conversation, and how what they write is read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from adaspec_jax import data
from adaspec_jax.data.chat import ASSISTANT, Refused, Template
from adaspec_jax.data.texts import answer_ids
from adaspec_jax.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORM = 'Write the answer after "Answer:" and, on the next line, what speaks for it after "Rationale:", in a sentence.'
_HERE = "@@the draft@@"  # in its place while the conversation is rendered


@dataclass(frozen=True)
class Prompts:
    """Templates, in which {question} and {passages} stand for what is asked and what was found. The words are ours.

    The drafter's parts come in the order in which `draft` asks for them; as the paper has them, from notes on it, the
    rationale is first, and here the answer, so that a short budget cuts the rationale.
    """

    draft: str = "Answer the question from the passages. " + _FORM + "\n\n{passages}\n\nQuestion: {question}"
    plain: str = "Answer the question from the passages, as briefly as you can.\n\n{passages}\n\nQuestion: {question}"
    judged: str = "Answer the question. " + _FORM + "\n\nQuestion: {question}"  # what a draft stands after when judged
    reflection: str = "Does the rationale support the answer? Say Yes or No."
    yes: str = "Yes"
    passage: str = "[{number}] {text}"
    answer: str = "Answer:"  # marks of a draft's parts
    rationale: str = "Rationale:"
    cue: str = "Answer:"  # with which a draft begins that goes on from text: one of the two marks
    stop: str = "\n\n"  # before which such a draft ends; "": at the end of text alone

    def __post_init__(self) -> None:
        needed = {"draft": ("passages", "question"), "plain": ("passages", "question"), "judged": ("question",)}
        needed["passage"] = ("text",)
        for name, parts in needed.items():
            for part in parts:
                if f"{{{part}}}" not in getattr(self, name):
                    raise ValueError(f'the template "{name}" has no place for {{{part}}}')
        if not (self.yes.strip() and self.answer.strip() and self.rationale.strip()):
            raise ValueError('"yes", "answer" and "rationale" must be words')
        if self.cue not in (self.answer, self.rationale):
            raise ValueError(f'"cue" is {self.cue!r}, and must be the mark "answer" or "rationale" as they are written')

    @classmethod
    def of(cls, values: Mapping[str, object], where: str) -> Prompts:
        """Those given in place of the defaults; UserError for what is no template."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in values.items():
            if name not in known:
                raise UserError(f'{where}: there is no template "{name}"{did_you_mean(name, known)}')
            if not isinstance(value, str):
                raise UserError(f'{where}: the template "{name}" must be text')
        try:
            prompts = cls(**values)
            prompts.with_passages("", ["a"], "draft"), prompts.with_passages("", ["a"], "plain"), prompts.alone("")
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{where}: {error}; other braces are written twice, as in {{{{ and }}}}") from None
        return prompts

    def with_passages(self, question: str, passages: Sequence[str], which: str) -> str:
        """The template `which` ("draft" or "plain") of this question."""
        each = [self.passage.format(number=number, text=text) for number, text in enumerate(passages, 1)]
        return getattr(self, which).format(question=question, passages="\n\n".join(each))

    def alone(self, question: str) -> str:
        """What a draft is said to answer when it is judged."""
        return self.judged.format(question=question)

    def parts(self, said: str) -> tuple[str, str]:
        """(answer, rationale): what follows the first of each mark; what is before any mark follows the cue."""
        before, *rest = re.split(f"({re.escape(self.answer)}|{re.escape(self.rationale)})", said)
        found = {self.answer: "", self.rationale: ""}
        for mark, text in [*zip(rest[::2], rest[1::2], strict=True), (self.cue, before)]:
            found[mark] = found[mark] or text.strip()
        return found[self.answer], found[self.rationale]


class Judging(NamedTuple):
    """The tokens around a draft: `[*before, *draft, *after, *yes]` is what the target reads."""

    before: list[int]
    after: list[int]
    yes: list[int]


class AsText:
    """Prompts for models that go on from text."""

    def __init__(self, prompts: Prompts, tokenizer: PreTrainedTokenizerBase) -> None:
        self.prompts, self.tokenizer = prompts, tokenizer

    def draft(self, question: str, passages: Sequence[str]) -> list[int]:
        return self._tokens(self.prompts.with_passages(question, passages, "draft"), self.prompts.cue)

    def plain(self, question: str, passages: Sequence[str]) -> list[int]:
        return self._tokens(self.prompts.with_passages(question, passages, "plain"), self.prompts.answer)

    def judging(self, question: str) -> Judging:
        before = self._tokens(self.prompts.alone(question), self.prompts.cue)
        asked = f"\n\n{self.prompts.reflection}\n{self.prompts.answer}"
        [after], [yes] = answer_ids([asked], [f" {self.prompts.yes}"], self.tokenizer)
        return Judging(before, after, yes)

    def cut(self, tokens: list[int]) -> list[int]:
        """Those before the first `stop` that words precede; a token that holds both stays."""
        said = ""
        for count, piece in enumerate(data.pieces(tokens, self.tokenizer) if self.prompts.stop else ()):
            said += piece
            if self.prompts.stop in said.lstrip():
                return tokens[: count + bool(piece.strip())]
        return tokens

    def _tokens(self, text: str, cue: str) -> list[int]:
        return data.prompt_ids(f"{text}\n{cue}", self.tokenizer)


class AsChat:
    """Prompts as a user's turns, through a chat template."""

    def __init__(self, prompts: Prompts, template: Template) -> None:
        self.prompts, self._template, self.tokenizer = prompts, template, template.tokenizer

    def draft(self, question: str, passages: Sequence[str]) -> list[int]:
        return self._template.ids(self._text(self.prompts.with_passages(question, passages, "draft")))

    def plain(self, question: str, passages: Sequence[str]) -> list[int]:
        return self._template.ids(self._text(self.prompts.with_passages(question, passages, "plain")))

    def judging(self, question: str) -> Judging:
        before, here, after = self._text(self.prompts.alone(question), _HERE, self.prompts.reflection).partition(_HERE)
        if not here:
            raise UserError("the chat template leaves out what the assistant said before; leave --chat out")
        return Judging(*map(self._template.ids, (before, after, self.prompts.yes)))

    def cut(self, tokens: list[int]) -> list[int]:
        """All of them: a turn ends where its template ends it."""
        return tokens

    def _text(self, *turns: str) -> str:
        roles = ("user", ASSISTANT, "user")
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
        try:
            return self._template.text(messages, answer_follows=True)
        except Refused as refused:
            raise UserError(f"the chat template refuses the prompts ({refused}); leave --chat out") from None
