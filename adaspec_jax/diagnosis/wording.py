"""A diagnosis as text: the likeliest cause first, then the checklist with its evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from adaspec_jax.diagnosis.finding import CAUSE, OK, points

_MARKS = {OK: "ok  ", CAUSE: "CAUSE", None: "?   "}


def in_words(diagnosis: Mapping[str, Any], width: int = 100) -> str:
    """The whole of it, as lines of at most `width` characters but for commands, which are to be pasted."""
    lines = textwrap.wrap(diagnosis["verdict"], width) + [""]
    for finding in sorted(diagnosis["findings"], key=lambda f: f["verdict"] != CAUSE):
        mark = _MARKS.get(finding["verdict"], _MARKS[None]).strip()
        cost = f" [may cost {points(finding['costs'])}]" if finding["verdict"] == CAUSE and finding["costs"] else ""
        text = f"{mark:<5}  {finding['check']}: {finding['says']}{cost}"
        lines += textwrap.wrap(text, width, subsequent_indent=" " * 7, break_on_hyphens=False)
        if finding["verdict"] == CAUSE and finding["command"]:
            lines.append(f"       $ {finding['command']}")
    return "\n".join(lines)
