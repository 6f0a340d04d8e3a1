"""The page is well formed, fetches nothing, runs its one script alone, and shows what it was given."""

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from adaspec_jax.reporting import page as page_module
from adaspec_jax.reporting.answers import answers_of
from adaspec_jax.reporting.page import MOST_BYTES, differing, page
from adaspec_jax.reporting.page_script import SCRIPT
from adaspec_jax.reporting.page_style import STYLE
from adaspec_jax.reporting.runs import Run
from tests.reporting.conftest import CLASSES, answer

EVIL = '</script><script>alert("x")</script><img src=http://evil onerror=alert(1)> &amp; \'" {{ 7 * 7 }} $x_1$'
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; fails on a tag that closes another."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="answers">(.*?)</script>', text, re.DOTALL)[1])


def test_every_part_appears_and_nothing_is_fetched(run):
    text = page([run])
    parsed = Page(text)
    for heading in ("Verdict", "Result", "Acceptance and speed", "Training", "Token by token"):
        assert f"<h2>{heading}</h2>" in text
    for figure in ("Speed-up by draft length", "Acceptance by place in the answer", "Acceptance by depth in the round"):
        assert f"<h3>{figure}</h3>" in text
    for figure in ("Acceptance by class of token", "Calibration", "KL of selected tokens", "What was selected"):
        assert f"<h3>{figure}" in text
    assert text.index("<h2>Verdict") < text.index("<h2>Result")
    assert "The target accepts 67.2 % of the guesses of the AdaSPEC draft" in parsed.text
    assert not {"link", "img", "iframe", "object", "embed"} & set(parsed.tags)
    assert not {name for name, _ in parsed.attributes} & {"src", "srcset", "onclick", "onload", "title"}
    hrefs = [value for name, value in parsed.attributes if name == "href"]
    assert all(value.startswith("#") for value in hrefs)  # marks inside a drawing
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "://" not in text.replace("data:", "")


def test_the_policy_names_the_script_that_is_there_and_no_other(run):
    text = page([run])
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert scripts == [SCRIPT]
    pinned = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = dict(Page(text).attributes)["content"] and re.search(r'Policy" content="([^"]*)"', text)[1]
    policy = policy.replace("&#39;", "'")
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{pinned}'"
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval", "Function("):
        assert way not in SCRIPT


def test_hostile_text_anywhere_stays_text(run, report, evidence):
    report["task"] = EVIL
    report["settings"][EVIL] = report["environment"][EVIL] = EVIL
    report["drafts"][EVIL] = report["drafts"]["base"]
    report["paired"][f"draft-{EVIL}"] = report["paired"]["draft-reference"]
    evidence["drafts"][EVIL] = copy.deepcopy(evidence["drafts"]["base"])
    evidence["prompts"], evidence["pieces"] = [EVIL] * 2, [EVIL] * 9
    evidence["rows"] = [[{"text": EVIL, "kind": "selected", "gap": 1.0, "role": EVIL}]]
    text = page([run._replace(name=EVIL, curves={EVIL: run.curves["draft"], **run.curves}), run])
    parsed = Page(text)
    assert parsed.tags.count("script") == 2 and "img" not in parsed.tags and "onerror" not in dict(parsed.attributes)
    assert parsed.text.count(EVIL) >= 20  # and it is all still readable
    assert any(EVIL in answer["pieces"] for answer in data_of(text))  # whole, and inert


def test_missing_parts_are_left_out():
    text = page([Run("r", {"task": "t", "drafts": {}})])
    parsed = Page(text)
    assert "<h1>Acceptance on t</h1>" in text and not {"section", "figure", "script"} & set(parsed.tags)


def test_a_run_without_evidence_has_its_page_and_the_command_that_makes_it(run):
    text = page([run._replace(evidence=None, missing=["no evidence; do this"])])
    Page(text)
    assert "no evidence; do this" in text and "<h2>Token by token</h2>" not in text
    assert "<h3>Speed-up by draft length</h3>" in text and "<h3>KL of selected tokens</h3>" in text


def test_whitespace_control_and_broken_characters_are_visible(run, evidence):
    evidence["pieces"] = ["a\n\nb", "\t", "\x00\x1b\r", "\ud800", "", "no\nbreak", "x", "y", "z"]
    text = page([run])
    Page(text)
    assert "a↵\n↵\nb" in text and "no↵\nbreak" in text
    for sign in ("→\t", "␀␛␍", "\ufffd", "∅"):
        assert sign in text
    assert "\x00" not in text and "\x1b" not in text
    text.encode("utf-8")


def test_a_token_that_stands_alone_shows_its_spaces(run):
    """In the running text they are coloured; in a list of tokens a space would be nothing."""
    run.evidence["pieces"] = [" ", " has", "two  ", *run.evidence["pieces"][3:]]
    numbers = answers_of([run], 1000)[0].numbers
    assert {row[0] for row in numbers} >= {"␣", "␣has", "two␣␣"} and {"␣", "␣has"} <= {row[6] for row in numbers}


def test_tokens_have_a_look_for_each_colouring_and_all_their_numbers(run):
    text = page([run])
    first = data_of(text)[0]
    assert first["p"][0] == 0.8125 and first["q"][0] == 0.375 and first["kl"][0] == 0.625
    assert [first["pieces"][i] for i in first["target"][0]] == ["Anna", " has"]
    spans = re.findall(
        r'<span class="t ([a-z0-9 ]+)" role="option" aria-selected="false" id="t0-\d+">([^<]*)</span>', text
    )
    assert [css.split()[0] for css, _ in spans] == ["b", "a", "a", "a", "r", "a", "a", "a", "b"]
    assert [css.split()[1] for css, _ in spans][:4] == ["g0", "g1", "g2", "g3"]
    assert [css.split()[2] for css, _ in spans][:4] == ["l", "l", "s", "s"]  # from a gap of 0.2 nats on
    assert "6 of 7 judged guesses accepted; 9 tokens." in text
    for part in re.findall(r"<noscript>(.*?)</noscript>", text, re.DOTALL)[:1]:  # the same for readers without scripts
        assert part.count("<tr>") == 10 and "0.625" in part and "refused" in part


def test_a_page_stays_below_its_bound_however_much_there_is(run, evidence, curves, monkeypatch):
    evidence["pieces"] = [f"{'<&' * 29}{i:02d}" for i in range(100)]
    many = [answer(0, texts=evidence["pieces"], tokens=192) for _ in range(8)]
    evidence["drafts"] = {f"arm {i}": {**evidence["drafts"]["draft"], "answers": many} for i in range(4)}
    long = {f"stage {i}": [{"step": s, "loss": 1.0 / s} for s in range(1, 3001)] for i in range(3)}
    text = page([run._replace(curves=long)])
    assert len(text.encode()) < MOST_BYTES and "<h2>Token by token</h2>" in text
    monkeypatch.setattr(page_module, "MOST_BYTES", 100_000)
    assert "<h2>Token by token</h2>" not in page([run._replace(curves={})])


def test_several_runs_stand_side_by_side(run, report):
    other = copy.deepcopy(run)
    other.report["settings"]["draft_length"] = 3
    other.report["drafts"]["draft"]["alpha"] = 0.5
    text = page([run, other])
    parsed = Page(text)
    assert "<h1>Acceptance of 2 runs</h1>" in text and "mine (1)" in text and "mine (2)" in text
    assert differing([run.report["settings"], other.report["settings"]]) == [["draft_length", "5", "3"]]
    assert (
        "<h2>Settings that differ</h2>" in text and "max_new_tokens" not in text.split("Settings that differ")[2][:400]
    )
    assert parsed.text.count("The target accepts") == 2
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_equal_runs_make_equal_pages(run):
    assert page([run]) == page([copy.deepcopy(run)])


def luminance(colour):
    colour = colour if len(colour) == 7 else "#" + "".join(2 * letter for letter in colour[1:])
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_keep_wcag_contrast_in_both_schemes(scheme):
    blocks = re.findall(r":root \{([^}]*)\}", STYLE)
    colours = dict(re.findall(r"--(\w+): (#\w+)", blocks[scheme]))
    for ground in ("card", "good", "target", "gap0", "gap1", "gap2", "gap3"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground
        assert contrast(colours["mark"], colours[ground]) >= 3, ground
    for ground in ("card", "page"):
        assert contrast(colours["soft"], colours[ground]) >= 4.5, ground
    for line in ("s0", "s1", "s2", "s3", "s4", "s5"):
        assert contrast(colours[line], colours["card"]) >= 3, line
    assert contrast(colours["good"], colours["target"]) >= 1.4  # beside the double line and the weight


def test_classes_of_the_fixture_are_those_of_the_data():
    from adaspec_jax.data import TOKEN_CLASSES

    assert tuple(CLASSES) == TOKEN_CLASSES


def test_a_diagnosis_stands_on_the_page_causes_first_and_as_text(run):
    assert "Why acceptance is what it is" not in page([run])
    findings = [
        {"check": "template", "verdict": "ok", "says": "The same.", "command": None},
        {"check": "ends of text", "verdict": "cause", "says": EVIL, "command": "python -m adaspec_jax.evaluate"},
    ]
    text = page([run._replace(diagnosis={"verdict": "Likeliest cause: ends of text.", "findings": findings})])
    parsed = Page(text)
    assert "Likeliest cause: ends of text." in parsed.text and EVIL in parsed.text
    assert parsed.text.index("ends of text: cause") < parsed.text.index("template: ok")
    assert parsed.tags.count("script") == Page(page([run])).tags.count("script")
