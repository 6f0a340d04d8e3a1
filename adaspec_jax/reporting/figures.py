"""Figures as inline SVG by matplotlib: text stays text, colours are the page's, equal data give equal bytes."""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

SERIES = 6  # looks that differ without colour; further series begin again
_SIZE = 4.9, 3.1  # inches of 72 units
_STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----")
# Stand-ins that matplotlib draws with, and what the page's style sheet has in their place.
_INK, _SOFT, _RULE, _CARD = "#010203", "#010204", "#010205", "#010206"
_COLOURS = [f"#0102{16 + number:02x}" for number in range(SERIES)]
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _RULE: "--rule", _CARD: "--card"} | {
    c: f"--s{n}" for n, c in enumerate(_COLOURS)
}
_OWN_NAME = re.compile(r'( id="| href="#|url\(#)f[0-9a-f]{8}')
_MOST_POINTS = 400
_LONGEST_NAME = 34

Points = Sequence[tuple[float, float]]


class Figure(NamedTuple):
    """What a figure shows, three times over: drawn, in a sentence and as a table."""

    title: str
    says: str  # what is to be seen, for those who do not see it
    svg: str  # "" where nothing could be drawn
    head: list[str]
    rows: list[list[str]]


def lines(
    title: str,
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    says: str = "",
    marked: Mapping[str, Points] | None = None,
    percent: bool = False,
    log: bool = False,
    level: float | None = None,
    diagonal: bool = False,
) -> Figure | None:
    """A line for each series; None where there is no point. `marked`: points of a series that stand alone, unjoined.

    `level`: a height at which a thin line runs across; `diagonal`: one from corner to corner.
    """
    series = {name: [(a, b) for a, b in points if b > 0 or not log] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    marked = {name: points for name, points in (marked or {}).items() if points}
    if not series and not marked:
        return None
    names = list(dict.fromkeys([*series, *marked]))

    def draw(axes: Any) -> None:
        for number, name in enumerate(names):
            look = {"color": _COLOURS[number % SERIES], "label": named(name)}
            marker = _MARKERS[number % SERIES]
            if points := thinned(series.get(name, ())):
                few = len(points) <= 24
                shown = {"marker": marker if few else "", "markersize": 4}
                axes.plot(*zip(*points, strict=True), linestyle=_STYLES[number % SERIES], **shown, **look)
                look.pop("label")
            if points := marked.get(name):
                axes.plot(*zip(*points, strict=True), linestyle="", marker=marker, markersize=8, **look)
        if level is not None:
            axes.axhline(level, color=_SOFT, linewidth=1)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, label=None)
        if log:
            axes.set_yscale("log")
        _ticked(axes, log, all(float(a).is_integer() for points in series.values() for a, _ in points))

    rows = [
        [named(name), number(a), number(b, percent)] for name in names for a, b in thinned(series.get(name, ()), 20)
    ]
    rows += [[f"{named(name)}, measured", number(a), number(b, percent)] for name in marked for a, b in marked[name]]
    says = says or f"{y} by {x}"
    return Figure(title, says, _drawn(draw, names, x, y, percent), ["", x, y], rows)


def bars(
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    x: str,
    y: str,
    says: str = "",
    counts: Mapping[str, Sequence[int]] | None = None,
) -> Figure | None:
    """Shares in [0, 1], a bar for each series in each group, None where there is no such share; None without any."""
    series = {name: shares for name, shares in series.items() if any(share is not None for share in shares)}
    if not series or not groups:
        return None

    def draw(axes: Any) -> None:
        width = 0.84 / len(series)
        for i, (name, shares) in enumerate(series.items()):
            at = [group - 0.42 + (i + 0.5) * width for group in range(len(groups))]
            look = {"facecolor": _COLOURS[i % SERIES], "hatch": _HATCHES[i % SERIES], "edgecolor": _CARD}
            axes.bar(at, [share or 0 for share in shares], width * 0.94, label=named(name), linewidth=0, **look)
        axes.set_xticks(range(len(groups)), groups, rotation=35 if max(map(len, groups)) > 4 else 0, ha="center")
        axes.tick_params(axis="x", length=0)

    rows = [
        [named(name), group, number(share, True), *([f"{counts[name][i]:,}"] if counts else [])]
        for name, shares in series.items()
        for i, (group, share) in enumerate(zip(groups, shares, strict=True))
        if share is not None
    ]
    head = ["", x, y, *(["of"] if counts else [])]
    return Figure(title, says or f"{y} by {x}", _drawn(draw, list(series), x, y, True), head, rows)


def standalone(figures: Sequence[Figure], title: str) -> str:
    """The drawings side by side in rows of two, as one SVG file with its own colours."""
    figures, (width, height) = apart([each for each in figures if each.svg]), (72 * size for size in _SIZE)
    rows = -(-len(figures) // 2)
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": title})
    root.set("viewBox", f"0 0 {2 * width:g} {rows * (height + 22):g}")
    ElementTree.SubElement(root, "style").text = (
        "svg{font-family:sans-serif;--ink:#222;--soft:#666;--rule:#ddd;--card:#fff;--s0:#666c75;--s1:#b4590b;--s2:#1666b0;"
        "--s3:#187a52;--s4:#8b3fa8;--s5:#a3354a}"
    )
    ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    for place, figure in enumerate(figures):
        drawn = ElementTree.fromstring(figure.svg)
        drawn.attrib |= {"x": f"{place % 2 * width:g}", "y": f"{place // 2 * (height + 22) + 20:g}"}
        drawn.attrib |= {"width": f"{width:g}", "height": f"{height:g}"}
        at = {"x": f"{place % 2 * width + width / 2:g}", "y": f"{place // 2 * (height + 22) + 15:g}"}
        ElementTree.SubElement(root, "text", at | {"text-anchor": "middle", "font-size": "13"}).text = figure.title
        root.append(drawn)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def apart(drawn: Sequence[Figure], first: int = 0) -> list[Figure]:
    """The same, none of which has a name that another one has: equal drawings would have equal ones."""
    return [
        figure._replace(svg=_OWN_NAME.sub(rf"\g<1>f{number}-", figure.svg))
        for number, figure in enumerate(drawn, first)
    ]


def named(name: str) -> str:
    """A name that a legend has room for, without what XML cannot hold."""
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def number(value: float | None, percent: bool = False) -> str:
    """As a table shows it."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def thinned(points: Points, limit: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most `limit` of the points, in order: the lowest and highest of each stretch, so that spikes survive."""
    points = list(points)
    if len(points) <= limit:
        return points
    stretches, kept = limit // 2, []
    for i in range(stretches):
        stretch = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def _ticked(axes: Any, log: bool, whole: bool) -> None:
    """Numbers at the axes as people write them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole))
    if log:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)


def _drawn(draw: Callable[[Any], None], names: list[str], x: str, y: str, percent: bool) -> str:
    """The SVG; "" where matplotlib is not installed, and the table then says it all."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that it may not write to
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        return ""
    looks = {
        "svg.fonttype": "none",
        "svg.hashsalt": "adaspec",
        "font.size": 11.5,
        "hatch.linewidth": 1.2,
    }
    looks |= {"axes.unicode_minus": False, "text.parse_math": False, "hatch.color": _INK}
    looks |= {"text.color": _INK, "axes.labelcolor": _SOFT, "xtick.color": _SOFT, "ytick.color": _SOFT}
    with rc_context(looks):
        figure = Canvas(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_SOFT)
        axes.grid(axis="y", color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        draw(axes)
        axes.set_xlabel(x), axes.set_ylabel(y)
        if percent:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if names != [""]:
            across = 1 if max(map(len, map(named, names))) > 24 else 2
            place = {"loc": "outside upper left", "ncols": across, "frameon": False, "fontsize": 10.5}
            figure.legend(**place, handlelength=2.8)
        written = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(written, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inlined(written.getvalue())


def _inlined(svg: bytes) -> str:
    """The drawing without what a file of its own has: sizes, style sheets, names that a page would have twice."""
    root, alone = ElementTree.fromstring(svg), f"f{zlib.crc32(svg):08x}"
    used = set(re.findall(rb'(?:url\(|href=")#([^)"]+)', svg))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.tail = None  # indentation
        if element.attrib.get("id", "").encode() not in used:
            element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            value = re.sub(r"#0102[0-9a-f]{2}", lambda found: f"var({_VARIABLES[found[0]]})", value)
            value = re.sub(r"font-family: [^;]*; ?", "", value) if key == "style" else value
            value = re.sub(r"^(#|url\(#)(?=\w)", rf"\1{alone}", value) if key in ("href", "clip-path") else value
            value = re.sub(r"url\(#(?=\w)", f"url(#{alone}", value) if key == "style" else value
            element.attrib[key] = f"{alone}{value}" if key == "id" else value
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")
