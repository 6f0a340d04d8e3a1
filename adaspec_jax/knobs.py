"""Settings of something that is named, as a command line spells them: a method's, or a kind of head's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adaspec_jax.errors import UserError, did_you_mean

MOST_GUESSES = 4096  # in a round: the target reads them all at once
_MOST = 2**24  # of a whole number, whatever it counts
_TRUTHS = {"true": True, "false": False}
_SEVERAL = "-"  # between the numbers of a tuple, because commas stand between the values of a sweep


def checked(owner: str, known: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, texts among them read as their default's kind; UserError for a name or a value that cannot be."""
    found = {}
    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known) if known else "; it has none"
            raise UserError(f'{owner} has no knob "{name}"{hint}')
        try:
            found[name] = _read(known[name], value) if isinstance(value, str) else value
        except ValueError:
            kind = (
                f"a number up to {_MOST:,}"
                if known[name] is None
                else f"such as {spelt(known[name])}{_up_to(known[name])}"
            )
            raise UserError(f'{owner.rpartition(" ")[2]}.{name} is "{value}"; give {kind}') from None
    return found


def _up_to(default: Any) -> str:
    return f", up to {_MOST:,}" if type(default) is int else ""


def spelt(value: Any) -> str:
    """A value as a command line has it."""
    return _SEVERAL.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(default: Any, text: str) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _TRUTHS:
            raise ValueError(text)
        return _TRUTHS[text.lower()]
    if isinstance(default, tuple):
        return tuple(map(int, text.split(_SEVERAL)))
    if isinstance(default, float):
        if not math.isfinite(float(text)):
            raise ValueError(text)  # a report, which is JSON, could not hold it
        return float(text)
    if isinstance(default, str):
        return text
    if abs(number := int(text)) > _MOST:
        raise ValueError(text)
    return number
