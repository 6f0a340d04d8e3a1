"""Charts as SVG text, coloured by the page's CSS classes: no script, no font, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

MAX_POINTS = 400
_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 40  # room for axis labels

Points = list[tuple[float, float]]


def downsample(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most `limit` of the points, in order: the lowest and highest of each stretch, so that spikes survive."""
    if len(points) <= limit:
        return points
    stretches = limit // 2
    kept: Points = []
    for i in range(stretches):
        stretch = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def moving_mean(points: Points, window: int) -> Points:
    """Each value averaged with those up to `window` // 2 places around it."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    half = window // 2
    smooth = []
    for i, (x, _) in enumerate(points):
        start, stop = max(0, i - half), min(len(points), i + half + 1)
        smooth.append((x, (sums[stop] - sums[start]) / (stop - start)))
    return smooth


def line_chart(
    series: Mapping[str, Points], *, colours: Mapping[str, str], x_label: str, y_label: str, log_y: bool = False
) -> str:
    """One SVG with a line per series, `colours` naming its CSS class; "" when no point can be drawn.

    Long series are drawn faint as they are and bold as a moving mean. A log axis leaves out values at or below 0.
    """
    series = {
        name: [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log_y)]
        for name, points in series.items()
    }
    everything = [point for points in series.values() for point in points]
    if not everything:
        return ""
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    low, high = _limits(min(ys), max(ys), log_y)
    first, last = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def at(x: float, y: float) -> tuple[float, float]:
        height = (math.log(y / low) / math.log(high / low)) if log_y else (y - low) / (high - low)
        across = _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - height * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(at, (first, last), (low, high), x_label, y_label, log_y)]
    for name, points in series.items():
        if len(points) == 1:
            x, y = at(*points[0])
            parts.append(f'<circle class="dot {colours[name]}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        elif len(points) > 60:
            parts.append(_polyline(map(lambda point: at(*point), downsample(points)), f"raw {colours[name]}"))
            smooth = downsample(moving_mean(points, max(5, len(points) // 30)))
            parts.append(_polyline(map(lambda point: at(*point), smooth), f"line {colours[name]}"))
        elif points:
            parts.append(_polyline(map(lambda point: at(*point), points), f"line {colours[name]}"))
    return _svg(parts, f"{y_label} by {x_label}")


def bar_chart(series: Mapping[str, Sequence[float]], *, colours: Mapping[str, str], x_label: str, y_label: str) -> str:
    """Grouped bars of shares in [0, 1], group k holding each series' k-th; "" when there is nothing above 0."""
    groups = max((len(shares) for shares in series.values()), default=0)
    top = max((share for shares in series.values() for share in shares), default=0.0)
    if not groups or top <= 0:
        return ""
    _, high = _limits(0.0, top, False)
    slot = (_WIDTH - _LEFT - _RIGHT) / groups
    width = min(34.0, 0.8 * slot / len(series))
    base = _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x + 0.5) * slot, base - y / high * (base - _TOP)

    parts = [_axes(at, None, (0.0, high), x_label, y_label, False, as_percent=True)]
    every = math.ceil(groups / 20)
    for k in range(groups):
        if k % every == 0:
            parts.append(f'<text class="tick" x="{at(k, 0)[0]:.1f}" y="{base + 15}" text-anchor="middle">{k}</text>')
        for i, (name, shares) in enumerate(series.items()):
            if k < len(shares):
                x, y = at(k, shares[k])
                x += (i - len(series) / 2) * width
                parts.append(
                    f'<rect class="bar {colours[name]}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                    f'height="{max(0.0, base - y):.1f}"><title>{escape(name)}, {k} accepted: '
                    f"{100 * shares[k]:.1f} % of rounds</title></rect>"
                )
    return _svg(parts, f"{y_label} by {x_label}")


def interval_mark(value: float, low: float, high: float, *, scale: tuple[float, float], css: str) -> str:
    """A dot with its interval on a shared scale, small enough for a table cell."""
    width, (start, stop) = 120, scale

    def at(x: float) -> float:
        return 6 + (x - start) / ((stop - start) or 1) * (width - 12)

    return (
        f'<svg class="mark" viewBox="0 0 {width} 16" width="{width}" height="16" aria-hidden="true">'
        f'<line class="grid" x1="2" x2="{width - 2}" y1="8" y2="8"/>'
        f'<line class="line {css}" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot {css}" cx="{at(value):.1f}" cy="8" r="4"/></svg>'
    )


def _limits(low: float, high: float, log_y: bool) -> tuple[float, float]:
    if log_y:
        spread = max((high / low) ** 0.05, 1.05)
        return low / spread, high * spread
    low = min(low, 0.0) if low < 0.5 * high else low  # start at zero unless that would flatten the line
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if low == 0 else low - pad), high + pad


def _axes(at, x_range, y_range, x_label: str, y_label: str, log_y: bool, as_percent: bool = False) -> str:
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in log_ticks(*y_range) if log_y else nice_ticks(*y_range):
        y = at(0 if x_range is None else x_range[0], tick)[1]
        text = f"{100 * tick:g} %" if as_percent else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in nice_ticks(*x_range) if x_range else ():
        x = at(tick, y_range[1])[0]
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 15}" text-anchor="middle">{tick:g}</text>')
    middle = (_TOP + base) / 2
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    for place, text in (
        (f'x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}"', x_label),
        (f'transform="translate(13 {middle}) rotate(-90)"', y_label),
    ):
        parts.append(f'<text class="label" {place} text-anchor="middle">{escape(text)}</text>')
    return "".join(parts)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers in [low, high]."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high], with 2s and 5s when there would be fewer than three; never none."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        ticks = [factor * 10.0**e for e in exponents for factor in factors if low <= factor * 10.0**e <= high]
        if len(ticks) >= 3:
            return ticks
    return ticks if len(ticks) >= 2 else [tick for tick in nice_ticks(low, high) if tick > 0]


def _polyline(points, css: str) -> str:
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _svg(parts: list[str], title: str) -> str:
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"
