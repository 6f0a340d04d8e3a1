"""The page is well formed, fetches nothing, runs nothing, and shows what it was given."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from adaspec_jax.reporting import svg, write_html

EVIL = '</script><script>alert("x")</script><img src=http://evil onerror=alert(1)> &amp; \'"'
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; fails on a tag that closes another."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open, self.spans = [], [], "", [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)
            self.spans.append([dict(attributes), ""])

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.spans:
            self.spans[-1][1] += data


def curves(points=1500):
    return {
        "target": [{"step": s, "loss": 1 + math.exp(-s / 200)} for s in range(1, points)],
        "draft": [{"step": s, "loss": 0.5, "kl_kept": 0.4, "kl_dropped": 0.01} for s in range(0, points, 10)],
    }


def written(tmp_path, report, **parts):
    write_html(tmp_path / "report.html", report, **parts)
    return (tmp_path / "report.html").read_text("utf-8")


def test_every_part_appears_and_nothing_is_fetched_or_run(tmp_path, report):
    text = written(
        tmp_path,
        report,
        curves=curves(),
        tokens_decoded=[{"text": "hello", "kind": "accepted"}],
        tokens_selected=[[{"text": "hello", "kind": "selected", "gap": 0.5}]],
    )
    page = Page(text)
    for heading in ("Result", "Accepted guesses per round", "Loss", "A held-out answer", "Settings", "Environment"):
        assert f"<h2>{heading}</h2>" in text
    assert "AdaSPEC draft minus reference (DistillSpec): +1.2 points" in page.text
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "onclick", "onload"}
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_hostile_text_anywhere_stays_text(tmp_path, report):
    report["task"] = EVIL
    report["settings"][EVIL] = EVIL
    report["drafts"][EVIL] = report["drafts"]["base"]
    report["paired"][f"draft-{EVIL}"] = report["paired"]["draft-reference"]
    text = written(
        tmp_path,
        report,
        curves={EVIL: curves()["draft"]},
        tokens_decoded=[{"text": EVIL, "kind": kind} for kind in ("prompt", "accepted", "target", "rejected")],
        tokens_selected=[[{"text": EVIL, "kind": "selected", "gap": None}]],
    )
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and "onerror" not in dict(page.attributes)
    assert page.text.count(EVIL) >= 9  # and it is all still readable


def test_missing_parts_are_left_out(tmp_path):
    text = written(tmp_path, {"task": "t", "drafts": {}}, curves=None, tokens_decoded=None, tokens_selected=[])
    Page(text)
    assert "<h1>Acceptance on t</h1>" in text and "<section>" not in text


def test_whitespace_control_and_broken_characters_are_visible(tmp_path, report):
    tokens = [
        {"text": "a\n\nb", "kind": "accepted"},
        {"text": "\t", "kind": "target"},
        {"text": "\x00\x1b\r", "kind": "target"},
        {"text": "\ud800", "kind": "target"},
        {"text": "", "kind": "target"},
        {"text": "no\nbreak", "kind": "rejected"},
    ]
    text = written(tmp_path, report, tokens_decoded=tokens)
    Page(text)
    assert text.count("↵</i><br>") == 2 and "no<i" in text
    for sign in ("→", "␀", "␛", "␍", "\ufffd", "∅"):
        assert sign in text
    assert "\x00" not in text and "\x1b" not in text


def test_selected_tokens_carry_their_gap_and_the_caption_counts_them(tmp_path, report):
    rows = [
        [{"text": "q", "kind": "prompt", "gap": None}, {"text": "a", "kind": "selected", "gap": np.float32(1.25)}],
        [{"text": "b", "kind": "dropped", "gap": -0.5}, {"text": "c", "kind": "dropped"}],
    ]
    text = written(tmp_path, report, tokens_selected=rows)
    assert '<span class="t selected" title="gap +1.250 nats">a</span>' in text
    assert '<span class="t dropped" title="gap -0.500 nats">b</span>' in text
    assert '<span class="t prompt">q</span>' in text and '<span class="t dropped">c</span>' in text
    assert "1 of 3 answer tokens (33 %) were selected" in text


def test_accepted_and_target_tokens_are_counted_and_rejected_ones_are_not(tmp_path, report):
    kinds = ["prompt", "accepted", "accepted", "rejected", "target"]
    text = written(tmp_path, report, tokens_decoded=[{"text": "x", "kind": kind} for kind in kinds])
    assert "2 of 3 new tokens were the draft&#x27;s guesses, 1 the target&#x27;s own." in text


def test_an_unknown_kind_is_refused_by_name(tmp_path, report):
    with pytest.raises(ValueError, match='unknown token kind "acepted"'):
        written(tmp_path, report, tokens_decoded=[{"text": "x", "kind": "acepted"}])


def polylines(text):
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r'<polyline class="[^"]*" points="([^"]*)"', text)
    ]


def test_curves_are_downsampled_and_stay_inside_the_chart(tmp_path, report):
    text = written(tmp_path, report, curves=curves(5000))
    lines = polylines(text)
    assert lines and all(2 <= len(line) <= 400 for line in lines)
    assert all(0 <= x <= svg._WIDTH and 0 <= y <= svg._HEIGHT for line in lines for x, y in line)
    assert all(line == sorted(line, key=lambda point: point[0]) for line in lines)
    assert "nan" not in "".join(map(str, lines))


def test_a_single_spike_survives_downsampling():
    points = [(float(s), 1.0) for s in range(10_000)]
    points[7777] = (7777.0, 50.0)
    kept = svg.downsample(points)
    assert len(kept) <= 400 and (7777.0, 50.0) in kept and kept == sorted(kept)


def test_the_moving_mean_equals_a_direct_average():
    values = np.random.default_rng(0).normal(size=50)
    smooth = svg.moving_mean([(float(i), float(v)) for i, v in enumerate(values)], 7)
    direct = [values[max(0, i - 3) : i + 4].mean() for i in range(50)]
    np.testing.assert_allclose([y for _, y in smooth], direct)


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
def test_awkward_curves_are_drawn_or_left_out_without_a_nan(tmp_path, report, entries):
    text = written(tmp_path, report, curves={"target": entries})
    Page(text)
    drawn = re.findall(r'(?:points|cx|cy|x|y|y1|height|width)="([^"]*)"', text)
    assert not any("nan" in value or "inf" in value for value in drawn)
    assert ("<h2>Loss</h2>" in text) == any(
        np.isfinite(entry.get("loss") or np.nan) or entry.get("loss") == 0 for entry in entries
    )


def test_a_log_axis_spaces_powers_of_ten_evenly():
    points = [(float(s), 10.0**-s) for s in range(4)]
    (line,) = polylines(svg.line_chart({"a": points}, colours={"a": "s0"}, x_label="", y_label="", log_y=True))
    np.testing.assert_allclose(np.diff([y for _, y in line]), np.diff([y for _, y in line])[0], atol=0.11)


def test_bar_heights_are_proportional_to_shares():
    chart = svg.bar_chart({"a": [0.5, 0.25, 0.25]}, colours={"a": "s0"}, x_label="", y_label="")
    heights = [float(h) for h in re.findall(r'<rect[^>]*height="([\d.]+)"', chart)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2) and heights[1] == heights[2]
    assert "a, 0 accepted: 50.0 % of rounds" in chart


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.013, 0.0131), (-5, 3), (0, 1800), (2.5, 1e6)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = svg.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 11 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
