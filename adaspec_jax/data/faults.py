"""Rows that cannot be read are said together, so that a file is mended once: the first in words, all by place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from adaspec_jax.errors import UserError

_SHOWN = 10
_MOST = 1000  # then no more is read

Given = TypeVar("Given")
Made = TypeVar("Made")


def read_each(rows: Iterable[Given], read: Callable[[Given], Made], where: Callable[[Given], str]) -> list[Made]:
    """`read` of every row; one UserError where it raises some, with the first one's words and where all stand."""
    made, faults = [], []
    for row in rows:
        try:
            made.append(read(row))
        except UserError as fault:
            faults.append((where(row), fault))
            if len(faults) == _MOST:
                break
    if len(faults) == 1:
        raise faults[0][1]
    if faults and not made:  # no fault of theirs: they are read as what they are not
        raise UserError(f"{faults[0][1]}; nor can any other row be read") from faults[0][1]
    if faults:
        number = f"{_MOST} rows and maybe more" if len(faults) == _MOST else f"{len(faults)} rows"
        stand = in_words([place for place, _ in faults])
        raise UserError(f"{faults[0][1]}; {number} cannot be read: {stand}") from faults[0][1]
    return made


def in_words(places: Sequence[str]) -> str:
    """ "F lines 3, 5" of "F line 5" and "F line 3"."""
    file, _, kind = places[0].rpartition(" ")[0].rpartition(" ")
    stems, numbers = {place.rpartition(" ")[0] for place in places}, [place.rpartition(" ")[2] for place in places]
    several = len(places) > 1 and len(stems) == 1 and all(map(str.isdecimal, numbers))
    shown = (sorted(numbers, key=int) if several else list(places))[:_SHOWN]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"{f'{file} {kind}s ' if several else ''}{', '.join(shown)}{more}"
