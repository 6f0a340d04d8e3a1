"""Small line charts side by side, as one SVG that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LOOKS = """
text { font: 12px sans-serif; fill: #555; } .title { font-weight: bold; fill: #222; }
.grid { stroke: #ddd; } .axis { stroke: #777; } .line { fill: none; stroke-width: 2; stroke: var(--c); }
.dot { fill: var(--c); } .s0 { --c: #888; } .s1 { --c: #2a6fdb; } .s2 { --c: #d9622b; } .s3 { --c: #2e9e5b; }
rect.paper { fill: #fff; } rect.key { fill: var(--c); }
"""
WIDTH, HEIGHT, GAP = 440, 240, 44


def side_by_side(charts: Sequence[tuple[Mapping, str, str]], colours: Mapping[str, str], *, title: str) -> str:
    """Two charts in a row, each {line: points} and the words at its axes; `colours` has a line's class of `LOOKS`."""
    from adaspec_jax.reporting.svg import line_chart

    drawn = [
        (line_chart(series, colours={name: colours[name] for name in series}, x_label=x, y_label=y), series)
        for series, x, y in charts
    ]
    drawn = [(chart, series) for chart, series in drawn if chart]
    height = -(-len(drawn) // 2) * (HEIGHT + GAP)
    parts = [f'<rect class="paper" width="{2 * WIDTH}" height="{height}"/>']
    for i, (chart, series) in enumerate(drawn):
        x, y = i % 2 * WIDTH, i // 2 * (HEIGHT + GAP)
        for j, name in enumerate(series):
            at = x + 54 + (WIDTH - 54) // max(len(series), 3) * j
            parts.append(f'<rect class="key {colours[name]}" x="{at}" y="{y + 14}" width="10" height="10"/>')
            parts.append(f'<text x="{at + 14}" y="{y + 23}">{name}</text>')
        place = f'<svg x="{x}" y="{y + 30}" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(chart.replace("<svg ", place, 1))
    size = f'viewBox="0 0 {2 * WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">'
    return f"{head}<style>{LOOKS}</style>{''.join(parts)}</svg>\n"
