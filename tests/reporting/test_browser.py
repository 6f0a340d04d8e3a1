"""The page in a browser: a token is tapped and its numbers read; hostile text runs nothing; axe finds nothing serious.

`pip install PyQt6-WebEngine` brings one, Chromium; `pip install --no-deps axe-playwright-python` brings axe-core.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from adaspec_jax.reporting import write_page
from tests.running import PATIENCE

pytestmark = pytest.mark.skipif(find_spec("PyQt6") is None, reason="PyQt6-WebEngine is not installed")
AXE = find_spec("axe_playwright_python")
RUNS = "document.title='owned'"
EVIL = f"</title></style></script><script>{RUNS}</script><img src=x onerror={RUNS}><svg onload={RUNS}> '\"`"
BROWSER = """
import json, sys
from pathlib import Path
from PyQt6.QtCore import QPoint, Qt, QTimer, QUrl
from PyQt6.QtTest import QTest
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

page, width, height, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
app, view, found = QApplication(sys.argv[:1]), QWebEngineView(), []
view.setAttribute(Qt.WidgetAttribute.WA_DontShowOnScreen)
view.resize(width, height)
view.show()

def go(number):
    if number == len(steps):
        print(json.dumps(found))
        return app.quit()
    kind, what = steps[number]
    def then(value):
        found.append(value)
        QTimer.singleShot(200, lambda: go(number + 1))
    if kind == "ask":
        view.page().runJavaScript(what, then)
    elif kind == "press":  # a key
        QTest.keyClick(view.focusProxy(), getattr(Qt.Key, "Key_" + what))
        then(None)
    elif kind == "tap":  # the middle of an element, by the mouse's own events
        def press(at):
            QTest.mouseClick(view.focusProxy(), Qt.MouseButton.LeftButton, pos=QPoint(*map(round, at)))
            then(at)
        view.page().runJavaScript(f"(() => {{ const e = {what}; e.scrollIntoView({{block: 'center'}});"
            "const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; })()", press)
    elif kind == "wait":  # until it is true
        def again(value):
            QTimer.singleShot(100, lambda: go(number)) if not value else then(value)
        view.page().runJavaScript(what, again)
    elif kind == "picture":
        then(view.grab().save(what))
    elif kind == "source":
        view.page().runJavaScript(Path(what).read_text() + "; 0", lambda value: then(None))

view.loadFinished.connect(lambda ok: QTimer.singleShot(300, lambda: go(0)))
view.load(QUrl.fromLocalFile(page))
app.exec()
"""
HOSTILE = ("ask", "[document.title, document.querySelectorAll('img, iframe, [onerror], [onload]').length]")
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


def asked(page, *steps, size=SIZES["wide"], dark=False):
    """What a browser says to each step."""
    flags = "--no-sandbox --disable-gpu" + " --blink-settings=preferredColorScheme=0" * dark
    browser = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_CHROMIUM_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", BROWSER, page, *map(str, size), json.dumps(steps)],
        env=os.environ | browser,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def written(tmp_path, run):
    write_page(tmp_path / "r.html", [run])
    return tmp_path / "r.html"


PANEL = "document.getElementById('numbers').innerText"
SHOWN = "[...document.querySelectorAll('.answer')].map(each => each.getClientRects().length > 0).join()"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_token_is_tapped_and_its_numbers_are_read(written, size, dark):
    found = asked(
        written,
        ("ask", "matchMedia('(prefers-color-scheme: dark)').matches"),
        ("ask", "document.documentElement.scrollWidth <= window.innerWidth"),
        ("ask", SHOWN),
        ("tap", "document.querySelectorAll('.tokens')[0].children[4]"),
        ("ask", PANEL),
        ("press", "Right"),
        ("ask", PANEL),
        ("ask", "document.querySelectorAll('.t.on[aria-selected=true]').length"),
        ("tap", "document.querySelector('input[value=gap]')"),
        ("ask", "document.getElementById('view').className"),
        ("ask", "getComputedStyle(document.querySelectorAll('.tokens .g3')[0]).borderBottomWidth"),
        ("picture", str(written.with_suffix(".png"))),
        size=SIZES[size],
        dark=dark,
    )
    assert found[0] is dark and found[1] is True  # no sideways scrolling
    assert found[2] == ",".join(["true"] + ["false"] * 6)
    for part in ("in place of the refused guess “␣has”", "p 81.3 %", "q 37.5 %", "KL 0.625 nats", "gap -0.100 nats"):
        assert part in found[4]
    assert "The target (p)" in found[4] and "The draft (q)" in found[4] and "12.5 %" in found[4]
    assert "accepted guess" in found[6] and "gap 0.050 nats" in found[6] and found[7] == 1
    assert found[9] == "by-gap" and found[10] == "4px"
    assert written.with_suffix(".png").stat().st_size > 10_000


def test_all_is_there_for_readers_without_scripts(written):
    """A script that the policy does not know is not run: this is the page of a browser that runs none."""
    text = written.read_text("utf-8").replace('"use strict";', '"use strict"; ')
    text = text.replace("<noscript>", "<div class='none'>").replace("</noscript>", "</div>")
    written.write_text(text, "utf-8")
    numbers = "document.querySelectorAll('.none')[0].textContent"
    shown, controls, table = asked(written, ("ask", SHOWN), ("ask", "controls.hidden"), ("ask", numbers))
    assert shown == ",".join(["true"] * 7) and controls is True and "0.625" in table


def test_a_report_of_hostile_text_runs_nothing(tmp_path, run, report, evidence):
    report["task"] = EVIL
    report["settings"][EVIL] = report["environment"][EVIL] = EVIL
    report["drafts"][EVIL] = report["drafts"]["base"]
    report["paired"][f"draft-{EVIL}"] = report["paired"]["draft-reference"]
    evidence["prompts"], evidence["pieces"] = [EVIL] * 2, [EVIL] * 9
    evidence["rows"] = [[{"text": EVIL, "kind": "selected", "gap": 1.0}]]
    hostile = run._replace(name=EVIL, curves={EVIL: run.curves["draft"]})
    write_page(tmp_path / "r.html", [hostile, run])
    text = (tmp_path / "r.html").read_text("utf-8")
    (tmp_path / "open.html").write_text(text.replace("Content-Security-Policy", "nothing"), "utf-8")
    for name in ("r.html", "open.html"):  # with what forbids scripts, and by the escaping alone
        tap = ("tap", "document.querySelectorAll('.tokens')[0].children[4]")
        (title, elements), _, panel, after = asked(tmp_path / name, HOSTILE, tap, ("ask", PANEL), HOSTILE)
        assert title != "owned" and elements == 0 and after == [title, 0]
        assert RUNS in panel  # it was shown


def test_the_browser_runs_such_text_where_it_is_not_escaped(tmp_path):
    (tmp_path / "evil.html").write_text(f"<html><head><title>x{EVIL}</head></html>")
    ((title, elements),) = asked(tmp_path / "evil.html", HOSTILE)
    assert title == "owned" and elements >= 2


@pytest.mark.skipif(AXE is None, reason="axe-playwright-python, which carries axe-core, is not installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious(written, size, dark):
    source = next(Path(AXE.submodule_search_locations[0]).rglob("axe.min.js"))
    run_axe = (
        "axe.run(document).then(found => { window.found = found.violations.map(each => [each.id, each.impact, "
        "each.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + (node.any[0]?.message ?? ''))]); }); 0"
    )
    every = "document.querySelectorAll('details').forEach(each => { each.open = true; }); 0"
    tap = ("tap", "document.querySelectorAll('.tokens')[0].children[4]")
    steps = (
        ("ask", every),
        tap,
        ("source", str(source)),
        ("ask", run_axe),
        ("wait", "window.found !== undefined"),
        ("ask", "[found, axe.version]"),
    )
    *_, (violations, version) = asked(written, *steps, size=SIZES[size], dark=dark)
    assert version and not violations, json.dumps(violations, indent=1)


@pytest.mark.skipif(AXE is None, reason="axe-playwright-python, which carries axe-core, is not installed")
def test_axe_finds_what_is_wrong_with_a_page_that_is(tmp_path):
    (tmp_path / "bad.html").write_text(
        "<html><body><img src=x><p style='color:#ccc;background:#fff'>pale</p></body></html>"
    )
    source = next(Path(AXE.submodule_search_locations[0]).rglob("axe.min.js"))
    run_axe = "axe.run(document).then(found => { window.found = found.violations.map(each => each.id); }); 0"
    *_, violations = asked(
        tmp_path / "bad.html",
        ("source", str(source)),
        ("ask", run_axe),
        ("wait", "window.found !== undefined"),
        ("ask", "found"),
    )
    assert {"image-alt", "color-contrast", "html-has-lang"} <= set(violations)
