"""Figures say the same drawn and as a table; a page may hold many of them."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from adaspec_jax.reporting import figures
from adaspec_jax.reporting.evidence_figures import smooth, trained
from adaspec_jax.reporting.runs import Run

drawn = pytest.mark.skipif(
    not figures.lines("t", {"a": [(1.0, 1.0)]}, x="x", y="y").svg, reason="matplotlib is not installed"
)
EVIL = "$\\frac{1}$ <b>\x00\x1b{}" + "long " * 20


@drawn
def test_text_stays_text_and_colours_are_the_pages():
    figure = figures.lines("t", {EVIL: [(1, 0.25), (2, 0.5)]}, x="step", y="nats", percent=True)
    root = ElementTree.fromstring(figure.svg)
    words = [element.text for element in root.iter("text")]
    assert "step" in words and "nats" in words and any(word.startswith("$\\frac{1}$ <b>") for word in words if word)
    assert "var(--s0)" in figure.svg and not re.search(r"#[0-9a-f]{6}\b(?!;)", figure.svg.replace('"#', ""))
    assert "<style" not in figure.svg and "metadata" not in figure.svg and "xmlns" not in figure.svg


@drawn
def test_two_figures_of_a_page_have_no_name_in_common_and_equal_data_equal_bytes():
    def made(value):
        return figures.lines("t", {"a": [(1, value), (2, 1.0)]}, x="x", y="y").svg

    one, other = (set(re.findall(r' id="([^"]*)"', made(value))) for value in (0.5, 0.25))
    assert one and not one & other and made(0.5) == made(0.5)
    for name in re.findall(r'(?:url\(|href=")#([^)"]+)', made(0.5)):
        assert name in one


def test_the_table_has_what_is_drawn():
    figure = figures.lines("t", {"a": [(1, 0.25)]}, x="x", y="y", marked={"a": [(3, 0.5)]}, percent=True)
    assert figure.rows == [["a", "1", "25.0 %"], ["a, measured", "3", "50.0 %"]]
    figure = figures.bars("t", ["u", "v"], {"a": [0.5, None]}, x="x", y="y", counts={"a": [8, 0]})
    assert figure.head == ["", "x", "y", "of"] and figure.rows == [["a", "u", "50.0 %", "8"]]


def test_without_a_point_there_is_no_figure():
    assert figures.lines("t", {"a": []}, x="x", y="y") is None
    assert figures.lines("t", {"a": [(1, 0.0), (2, -1.0)]}, x="x", y="y", log=True) is None
    assert figures.bars("t", ["u"], {"a": [None]}, x="x", y="y") is None


@pytest.mark.parametrize(
    "entries",
    [
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}],
        [{"step": 1, "loss": None}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0}],
        [{"step": s, "loss": 3.0} for s in range(5)],
        [{"step": s, "loss": 10.0**-s} for s in range(9)],
        [{"step": s, "loss": -1.0 * s} for s in range(5)],
        [{"step": s, "loss": 2.5 + 1e-9 * s} for s in range(5)],
        [],
        [{"step": 1}],
    ],
)
def test_awkward_curves_are_drawn_or_left_out_without_a_nan(entries):
    found = trained([Run("r", {"drafts": {}}, None, {"target": entries})])
    there = [entry["loss"] for entry in entries if entry.get("loss") is not None and math.isfinite(entry["loss"])]
    assert bool(found) == bool(there)
    for figure in found:
        assert "nan" not in figure.svg and "inf" not in figure.svg and len(figure.rows) == len(there)


def test_a_single_spike_survives_thinning():
    points = [(float(s), 1.0) for s in range(10_000)]
    points[7777] = (7777.0, 50.0)
    kept = figures.thinned(points)
    assert len(kept) <= 400 and (7777.0, 50.0) in kept and kept == sorted(kept)


def test_the_moving_mean_equals_a_direct_average():
    values = np.random.default_rng(0).normal(size=240)
    direct = [values[max(0, i - 4) : i + 5].mean() for i in range(240)]
    np.testing.assert_allclose([y for _, y in smooth([(float(i), float(v)) for i, v in enumerate(values)])], direct)


@drawn
def test_figures_side_by_side_stand_alone():
    one = figures.lines("one", {"a": [(1, 2), (2, 3)]}, x="x", y="y")
    root = ElementTree.fromstring(figures.standalone([one, one, one], "all & each"))
    assert root.get("aria-label") == "all & each"
    assert len([child for child in root if child.tag.endswith("svg")]) == 3
