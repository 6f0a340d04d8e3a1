"""What a word problem is written with: drawn numbers, steps, parts, and the people and things in them."""

from __future__ import annotations

from dataclasses import dataclass

# A drawn number is (first, last) or (first, last, stride), or one of these, whose word is the slot `<name>_word`.
TIMES = ((2, "twice"), (3, "three times"), (4, "four times"), (5, "five times"))
FRACTIONS = ((2, "half"), (3, "a third"), (4, "a quarter"), (5, "a fifth"))
Draw = tuple


@dataclass(frozen=True)
class Step:
    """`result` names the number that `expression` (one kind of precedence, so it is read left to right) yields."""

    result: str
    expression: str
    text: str


@dataclass(frozen=True)
class Part:
    """An opening, or a continuation of an opening whose last result is `{x}`."""

    draws: dict[str, Draw]
    story: str
    steps: tuple[Step, ...]
    question: str


def part(draws: dict[str, Draw], story: str, question: str, *steps: tuple[str, str, str]) -> Part:
    return Part(draws, story, tuple(Step(*step) for step in steps), question)


SHE = (
    "Anna Clara Dana Emma Fatima Grace Hana Iris Julia Kate Lena Mia Nora Olga Priya Rosa Sara Tina Uma Vera Wendy"
).split()
HE = (
    "Adam Carlos David Eric Felix George Hugo Ivan James Kevin Leo Mark Noah Omar Paul Ravi Sam Tom Victor Will Yusuf"
).split()
THINGS = (
    "apples balls beads books buttons candles cards clips coins cookies crayons cupcakes eggs flowers kites lemons "
    "magnets marbles muffins oranges peaches pears pencils photos pies plates plums postcards ribbons roses shells "
    "stamps stickers stones tickets tomatoes toys"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
