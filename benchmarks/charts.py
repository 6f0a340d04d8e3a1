"""Small line charts side by side, as one SVG that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def side_by_side(charts: Sequence[tuple[Mapping, str, str]], *, title: str) -> str:
    """Two charts in a row, each {line: points} and the words at its axes."""
    from adaspec_jax.reporting import figures

    drawn = [figures.lines("", series, x=x, y=y) for series, x, y in charts]
    return figures.standalone([figure for figure in drawn if figure is not None], title)
