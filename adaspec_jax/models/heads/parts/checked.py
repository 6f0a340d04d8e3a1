"""What a head's knobs and sizes may be, whoever says them: a command line, or a file of a stranger's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def check_knobs(kind: Any, *, counts: Sequence[str] = (), shares: Sequence[str] = ()) -> None:
    """ValueError for one of these fields that is no count within the target's context, or not above 0 and at most 1.

    Also where a field is of another type than it says, where a weight of the loss or the noise is below 0, and where
    nothing is left of the loss.
    """
    check_types(kind)
    for name in counts:
        if getattr(kind, name) < 1:
            raise ValueError(f"{name} is {getattr(kind, name)}; it must be at least 1")
        if getattr(kind, name) >= kind.sizes.max_positions:
            context = kind.sizes.max_positions
            raise ValueError(f"{name} is {getattr(kind, name)}; it must be below the target's context of {context}")
    for name in shares:
        if not 0 < getattr(kind, name) <= 1:
            raise ValueError(f"{name} is {getattr(kind, name)}; it must be above 0 and at most 1")
    for name in ("laws", "features", "noise"):
        if not 0 <= getattr(kind, name) < float("inf"):
            raise ValueError(f"{name} is {getattr(kind, name)}; it must be a number from 0 on")
    if not kind.laws and not kind.features:
        raise ValueError("laws and features are 0: there is nothing to learn")


def check_taps(taps: Sequence[int], count: int) -> None:
    """ValueError for layers of a target that it has not, or that are not ascending."""
    if outside := [tap for tap in taps if not 0 <= tap < count]:
        raise ValueError(f"taps has {outside[0]}; the target has layers 0 to {count - 1}")
    if len(set(taps)) != len(taps) or tuple(sorted(taps)) != tuple(taps):
        raise ValueError(f"taps {taps} must be ascending, each once")


def check_types(made: Any, *, least: int | None = None) -> None:
    """ValueError for a field of a dataclass, whose values a file says, that is no number or truth as its type is.

    Also for a whole number below the `least`.
    """
    for each in dataclasses.fields(made):
        value, kinds = getattr(made, each.name), _TYPES.get(each.type)
        if kinds is not None and type(value) not in kinds:
            raise ValueError(f"{each.name} is {str(value)[:40]!r}; {each.type} is needed")
        if least is not None and type(value) is int and value < least:
            raise ValueError(f"{each.name} is {value}; it must be at least {least}")
