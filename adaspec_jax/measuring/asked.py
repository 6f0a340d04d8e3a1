"""What a benchmark asks: prompts of a file or of a task, or conversations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from adaspec_jax import data
from adaspec_jax.data.chat import Conversation
from adaspec_jax.data.prompts import MULTI_TURN, Prompt, as_one, first_and_spread
from adaspec_jax.errors import UserError
from adaspec_jax.measuring import scores

HELD_BACK = 5  # one prompt more for so many, where there are more: the fastest method is measured on those again


def prompts_of(
    file: str | None, task: str | None, count: int, *, path: str | None, split: str, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """The first `count` prompts of a file, or of a task's split, and others of it that are held back."""
    more = -(-count // HELD_BACK)
    if file is not None:
        return first_and_spread(file, count, more)
    examples = data.load_examples(task, split, path=path, num=count + more, seed=seed)
    if not all(isinstance(each, data.Example) for each in examples):
        raise UserError(f"{task} is made of conversations: give them as --prompts FILE, with --chat")
    by_tests = task in scores.BY_TESTS  # a program without tests cannot be scored
    answers = [each.tests or None if by_tests else each.answer for each in examples]
    found = [Prompt(n, each.prompt, answer=answers[n - 1]) for n, each in enumerate(examples, 1)]
    return found[:count], found[count:]


def conversations_of(file: str, count: int, *, assistants: Sequence[str]) -> list[Conversation]:
    """The first `count` conversations of a file, MT-bench's categories as one where Spec-Bench's are there."""
    talks = data.load_examples(data.CHAT, path=file, assistants=assistants).examples
    if not all(isinstance(talk, Conversation) for talk in talks):
        raise UserError(f"{file} holds rows that are tokens already; --chat reads conversations")
    one = as_one(talk.category for talk in talks)
    return [dataclasses.replace(talk, category=MULTI_TURN) if talk.category in one else talk for talk in talks[:count]]
