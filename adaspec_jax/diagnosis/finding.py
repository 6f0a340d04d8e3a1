"""What one line of the checklist comes to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

OK, CAUSE, UNKNOWN = "ok", "cause", "cannot tell"


@dataclass(frozen=True)
class Finding:
    """A verdict, what it rests on, and what to do next."""

    check: str
    verdict: str
    says: str  # a sentence with the numbers that support it
    costs: float | None = None  # of acceptance, as a share of 1, where that can be estimated
    command: str | None = None  # to run next, whole
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)  # in the units that `says` names
    fatal: bool = False  # nothing else can be told before it is mended


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of two shares."""
    return f"{100 * share:.1f} points"
