"""The embedded task: grade-school word problems with worked, annotated solutions in GSM8K's shape, from a seed."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Any

from adaspec_jax.data.word_problems import parts as words
from adaspec_jax.data.word_problems import templates
from adaspec_jax.errors import UserError, did_you_mean

# Out of 10: a problem's split is decided by a hash of its own question, so no two splits can share one, whatever the
# seeds and however many problems are asked for.
_SPLIT_SHARES = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}
SPLITS = tuple(_SPLIT_SHARES)
_LARGEST = 2000
_PATIENCE = 20_000


def generate(num: int, *, seed: int, split: str) -> list[dict[str, str]]:
    """`num` different problems of a split, as rows with `question` and `answer`; the first ones do not depend on `num`.

    The same on every Python version, splits never share a question (for any two seeds), every annotation
    `<<48/2=24>>` is right and whole, and the answer ends with `#### N`. Raises UserError for an unknown split, or where
    the templates hold no further problem.
    """
    if split not in _SPLIT_SHARES:
        raise UserError(f'word_problems has no split "{split}"{did_you_mean(split, _SPLIT_SHARES)}')
    if num < 1 or seed < 0:
        raise UserError(f"word_problems needs at least 1 problem and a seed of at least 0, not {num} and {seed}")
    dice = _Dice(seed)
    rows: dict[str, str] = {}
    misses = 0
    while len(rows) < num:
        question, answer = _problem(dice)
        if question in rows or _share(question) not in _SPLIT_SHARES[split]:
            misses += 1
            if misses > _PATIENCE:
                raise UserError(f"word_problems ran out at {len(rows)} of {num} {split} problems; ask for fewer")
            continue
        misses = 0
        rows[question] = answer
    return [{"question": question, "answer": answer} for question, answer in rows.items()]


class _Dice:
    """Draws built on `random.Random(int).random()`, the stream Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self._random() * limit)

    def choice(self, options: Sequence) -> Any:
        return options[self.below(len(options))]

    def several(self, options: Sequence, count: int) -> list:
        """`count` different options, in drawn order."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(count)]


def _share(question: str) -> int:
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % 10


def _problem(dice: _Dice) -> tuple[str, str]:
    opening, after = _plot(dice)
    parts = [opening] if after is None else [opening, after]
    numbers = None
    while numbers is None:
        numbers = _numbers(dice, parts)
    slots = {**_cast(dice), **{name: str(value) for name, value in numbers.items()}}
    story = " ".join(_say(dice, part.story, slots) for part in parts)
    question = f"{story} {_say(dice, parts[-1].question, slots)}"
    sign = dice.choice(_SIGNS)
    lines = [_line(dice, step, slots, numbers, sign) for part in parts for step in part.steps]
    return _sentences(question), "\n".join([*lines, f"#### {numbers[parts[-1].steps[-1].result]}"])


def _plot(dice: _Dice) -> tuple[words.Part, words.Part | None]:
    """An opening and, two times out of three where one fits, what follows it."""
    openings, after = dice.choice(
        ((templates.COUNTS, templates.AFTER_COUNTS), (templates.MONEY, templates.AFTER_MONEY), (templates.WHOLE, None))
    )
    opening = dice.choice(openings)
    follows = after is not None and dice.below(3) > 0
    return opening, dice.choice(after) if follows else None


def _numbers(dice: _Dice, parts: list[words.Part]) -> dict[str, int | str] | None:
    """Drawn numbers, their words and every step's result; None where a result is not a whole number from 2 to 2000."""
    numbers: dict[str, int | str] = {}
    for part in parts:
        for name, draw in part.draws.items():
            if isinstance(draw[0], tuple):
                numbers[name], numbers[f"{name}_word"] = dice.choice(draw)
            else:
                first, last, stride = draw if len(draw) == 3 else (*draw, 1)
                numbers[name] = first + stride * dice.below((last - first) // stride + 1)
        for step in part.steps:
            value = _value(step.expression.format(**numbers))
            if value is None:
                return None
            numbers[step.result] = value
    return numbers


def _value(expression: str) -> int | None:
    """A sum or a product of whole numbers, read left to right; None where it is not whole or outside 2..2000."""
    first, *rest = re.findall(r"\d+|[-+*/]", expression)
    value = int(first)
    for sign, operand in zip(rest[::2], map(int, rest[1::2]), strict=True):
        if sign == "/" and value % operand:
            return None
        value = {"+": value + operand, "-": value - operand, "*": value * operand, "/": value // operand}[sign]
    return value if 2 <= value <= _LARGEST else None


def _cast(dice: _Dice) -> dict[str, str]:
    """The people, things and days of one problem, all different."""
    she = dice.below(2) == 0
    name = dice.choice(words.SHE if she else words.HE)
    friend, third, other = dice.several([person for person in words.SHE + words.HE if person != name], 3)
    things, things2 = dice.several(words.THINGS, 2)
    day, day2 = dice.several(words.DAYS, 2)
    he, him, his = ("she", "her", "her") if she else ("he", "him", "his")
    people = {"name": name, "friend": friend, "third": third, "other": other, "he": he, "him": him, "his": his}
    return {**people, "things": things, "things2": things2, "day": day, "day2": day2}


# How an author writes an equation, kept through one problem: 48/2, 48 / 2, or with an x for "times".
_SIGNS: tuple[dict[str, str], ...] = (
    {},
    {sign: f" {sign} " for sign in "+-*/"},
    {"+": " + ", "-": " - ", "*": " x ", "/": " / "},
)


def _line(dice: _Dice, step: words.Step, slots: dict[str, str], numbers: dict, sign: dict[str, str]) -> str:
    expression = step.expression.format(**numbers)
    value = numbers[step.result]
    shown = "".join(sign.get(letter, letter) for letter in expression)
    note = f"<<{expression}={value}>>{value}"
    return _sentences(_say(dice, step.text, {**slots, "calc": f"{shown} = {note}", "cash": f"{shown} = ${note}"}))


def _say(dice: _Dice, text: str, slots: dict[str, str]) -> str:
    """The text with every `[one|two]` decided and every slot filled."""
    while "[" in text:
        text = re.sub(r"\[([^\[\]]*)\]", lambda match: dice.choice(match[1].split("|")), text)
    return text.format(**slots)


def _sentences(text: str) -> str:
    """The text with single spaces, none before a mark, and a capital at the start of each sentence."""
    text = re.sub(r" +([.,?]|$)", r"\1", re.sub(r" +", " ", text)).strip()
    return re.sub(r"(^|[.?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
