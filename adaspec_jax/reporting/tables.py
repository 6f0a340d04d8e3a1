"""Tables in plain text: columns below one another, or where a terminal is too narrow for them a block for each row."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import IO

_ABSENT = ("", "-")
_LEAST = 20  # columns below which no line is folded


def columns_of(stream: IO[str] | None = None) -> int | None:
    """Of the terminal that `stream`, or standard output, is; None where it is none, and any width will do."""
    stream = sys.stdout if stream is None else stream
    if not (hasattr(stream, "isatty") and stream.isatty()):
        return None
    from rich.console import Console

    return Console(file=stream).width


def aligned(rows: Sequence[Sequence[str]], *, right: bool = True, columns: int | None = None) -> list[str]:
    """Lines with the cells below one another, and a rule under the first row; `in_blocks` where `columns` are too few.

    Numbers, in all cells but a row's first, stand at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns:
        return in_blocks(rows, columns=columns)
    lines = []
    for row in rows:
        cells = (c.rjust(w) if right and i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def in_blocks(rows: Sequence[Sequence[str]], *, columns: int | None = None) -> list[str]:
    """The first cell of every row but the first, and below it a line for each other cell that says something."""
    (_, *names), *rest = rows
    lines: list[str] = []
    for first, *cells in rest:
        said = [f"  {name}: {cell}" for name, cell in zip(names, cells, strict=True) if cell not in _ABSENT]
        lines += [*folded([first, *said], columns), ""]
    return lines[:-1]


def folded(lines: Sequence[str], columns: int | None) -> list[str]:
    """Lines of words that are no longer than so many columns; what follows in one is indented."""
    if columns is None or columns < _LEAST:
        return list(lines)
    how = {"width": columns, "subsequent_indent": "  ", "break_on_hyphens": False}
    return [part for line in lines for part in textwrap.wrap(line, **how) or [""]]
