"""Defaults of a config's fields together with what the field may hold; `checks.validate` asks them.

    lr: float = positive(3e-4)

Each field carries in its metadata a function of the value that gives the complaint, or None where all is well.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from adaspec_jax.errors import did_you_mean

Complaint = Callable[[Any], str | None]
MOST = 2**31 - 1  # of a number with no limit of its own: what a 32-bit integer holds
MOST_ROWS = 2**20  # of a batch
MOST_TOKENS = 2**24  # of a text
_KEY, _CHOICES = "complaint", "choices"


def bounded(default: Any, complaint: Complaint, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with this default; `complaint(value)` goes on after the key's name, as in "is 3; ..."."""
    return dataclasses.field(default=default, metadata={_KEY: complaint, _CHOICES: choices})


def choices_of(item: dataclasses.Field) -> tuple[str, ...]:
    """The words that a field may be; () where it is no such field."""
    return item.metadata.get(_CHOICES, ())


def complaint_of(item: dataclasses.Field, value: Any) -> str | None:
    """What is wrong with a field's value; a text is nowhere empty that is not so by default."""
    if isinstance(value, str) and not value.strip() and item.default != "":
        return "is empty; give a value, or leave it out"
    return item.metadata[_KEY](value) if _KEY in item.metadata else None


def positive(default: Any, most: float = MOST) -> Any:
    """A number above 0, or None where the default's type has that."""
    return bounded(default, _all(_unless(lambda value: value > 0, "it must be positive"), _at_most(most)))


def not_negative(default: Any, most: float = MOST) -> Any:
    return bounded(default, _all(_unless(lambda value: value >= 0, "it must not be negative"), _at_most(most)))


def share(default: float | None) -> Any:
    """In (0, 1]."""
    at_most_all = _unless(lambda value: value <= 1, "it must be at most 1, which is all")
    return bounded(default, _all(_unless(lambda value: value > 0, "it must be positive"), at_most_all))


def within(least: float, most: float, default: Any) -> Any:
    """In [least, most], or None where the default's type has that."""
    valid = _unless(lambda value: least <= value <= most, f"it must be from {least:,} to {most:,}")
    return bounded(default, valid)


def below(limit: float, default: float, why: str) -> Any:
    """In [0, limit)."""
    not_less = _unless(lambda value: value >= 0, "it must not be negative")
    return bounded(default, _all(not_less, _unless(lambda value: value < limit, why)))


def axis(default: int) -> Any:
    """A number of devices along an axis of the mesh, or -1."""
    what = "give a number of devices, or -1 for as many as fit"
    return bounded(default, _unless(lambda value: 0 < value <= MOST or value == -1, what))


def one_of(*choices: str, default: str | None = None) -> Any:
    """One of these words; the first is the default where none is named."""

    def complaint(value: str) -> str | None:
        return None if value in choices else f'is "{value}"; it must be one of {", ".join(choices)}'

    return bounded(default or choices[0], complaint, choices)


def named(*choices: str) -> Any:
    """As `one_of`, with the nearest word where the value is none of them."""

    def complaint(value: str) -> str | None:
        return None if value in choices else f'is "{value}"{did_you_mean(str(value), choices)}'

    return bounded(choices[0], complaint, choices)


def several_of(*choices: str) -> Any:
    """A text, maybe empty, of such words with commas between them."""

    def complaint(value: str) -> str | None:
        unknown = next((word for word in value.split(",") if value and word.strip() not in choices), None)
        return None if unknown is None else f'has "{unknown.strip()}"{did_you_mean(unknown.strip(), choices)}'

    return bounded("", complaint)


def steps_of(*stages: str) -> Any:
    """A text, maybe empty: some steps of a stage, as in draft:100-110."""

    def complaint(value: str) -> str | None:
        form = re.fullmatch(r"(\w+):([1-9]\d{0,9})-([1-9]\d{0,9})", value)
        if not value or (form and form[1] in stages and int(form[2]) <= int(form[3])):
            return None
        if form and form[1] not in stages:
            return f'is "{value}"{did_you_mean(form[1], stages)}'
        return f'is "{value}"; give a stage and its first and last step, as in draft:100-110'

    return bounded("", complaint)


def increasing(*lengths: int, most: int = MOST) -> Any:
    """A tuple, not empty, of numbers from 1 to `most` in increasing order."""

    def complaint(value: tuple[int, ...]) -> str | None:
        whole = isinstance(value, tuple) and all(type(length) is int and 0 < length <= most for length in value)
        if value and whole and list(value) == sorted(value):
            return None
        return f"is {value!r}; it must be lengths in increasing order, from 1 to {most:,}"

    return bounded(lengths, complaint)


def numbered(*numbers: int) -> Any:
    """A tuple, maybe empty, of different numbers from 0 on, in increasing order."""

    def complaint(value: Any) -> str | None:
        whole = isinstance(value, tuple) and all(type(number) is int and 0 <= number <= MOST for number in value)
        if whole and list(value) == sorted(set(value)):
            return None
        return f"is {value!r}; give different numbers from 0 on in increasing order, as in 0,2,5"

    return bounded(numbers, complaint)


def all_of(*choices: str | int) -> Any:
    """A tuple of some of these, or None, the default."""

    def complaint(value: Any) -> str | None:
        other = [item for item in value or () if item not in choices] if isinstance(value, tuple | None) else [value]
        return f"has {other[0]!r}; each must be one of {', '.join(map(str, choices))}" if other else None

    return bounded(None, complaint)


def all_positive() -> Any:
    """A tuple, maybe empty, of numbers above 0."""

    def complaint(value: Any) -> str | None:
        numbers = isinstance(value, tuple) and all(type(x) in (int, float) and 0 < x <= 1e6 for x in value)
        return None if numbers else f"is {value!r:.60}; it must be numbers above 0, at most 1,000,000"

    return bounded((), complaint)


def _all(*complaints: Complaint) -> Complaint:
    """The first complaint there is."""
    return lambda value: next(filter(None, (complaint(value) for complaint in complaints)), None)


def _at_most(most: float) -> Complaint:
    return _unless(lambda value: value <= most, f"it must be at most {most:,}")


def _unless(valid: Callable[[Any], bool], what: str) -> Complaint:
    return lambda value: None if value is None or valid(value) else f"is {value}; {what}"
