"""A page of hostile text in a browser: nothing of it runs. `pip install PyQt6-WebEngine` brings one, Chromium."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from adaspec_jax.reporting import write_html
from tests.running import PATIENCE

pytestmark = pytest.mark.skipif(find_spec("PyQt6") is None, reason="PyQt6-WebEngine is not installed")
RUNS = "document.title='owned'"
EVIL = f"</title></style></script><script>{RUNS}</script><img src=x onerror={RUNS}><svg onload={RUNS}> '\"`"
BROWSER = """
import json, sys
from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

app, view = QApplication(sys.argv), QWebEngineView()
ASKED = "[document.title, document.querySelectorAll('script, img, iframe, [onerror], [onload]').length]"

def said(found):
    print(json.dumps(found))
    app.quit()

view.loadFinished.connect(lambda ok: QTimer.singleShot(500, lambda: view.page().runJavaScript(ASKED, said)))
view.load(QUrl.fromLocalFile(sys.argv[1]))
app.exec()
"""


def opened(page):
    """[title, elements that could run something] of a page in a browser."""
    browser = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu"}
    done = subprocess.run(
        [sys.executable, "-c", BROWSER, page],
        env=os.environ | browser,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_report_of_hostile_text_runs_nothing(tmp_path, report):
    report["task"] = EVIL
    report["settings"][EVIL] = report["environment"][EVIL] = EVIL
    report["drafts"][EVIL] = report["drafts"]["base"]
    report["paired"][f"draft-{EVIL}"] = report["paired"]["draft-reference"]
    curves = {EVIL: [{"step": step, "loss": 1.0 / step, EVIL: 1.0} for step in range(1, 9)]}
    tokens = [{"text": EVIL, "kind": kind} for kind in ("prompt", "accepted", "target", "rejected")]
    selected = [[{"text": EVIL, "kind": "selected", "gap": None}]]
    write_html(tmp_path / "r.html", report, curves=curves, tokens_decoded=tokens, tokens_selected=selected)
    text = (tmp_path / "r.html").read_text("utf-8")
    (tmp_path / "open.html").write_text(text.replace("Content-Security-Policy", "nothing"), "utf-8")
    for name in ("r.html", "open.html"):  # with what forbids scripts, and by the escaping alone
        title, elements = opened(tmp_path / name)
        assert title != "owned" and elements == 0


def test_the_browser_runs_such_text_where_it_is_not_escaped(tmp_path):
    (tmp_path / "evil.html").write_text(f"<html><head><title>x{EVIL}</head></html>")
    title, elements = opened(tmp_path / "evil.html")
    assert title == "owned" and elements >= 3
