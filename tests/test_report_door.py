"""One page of finished runs, from what they keep, without jax."""

import json
import subprocess
import sys

import pytest

from adaspec_jax.reporting import write_evidence, write_json
from tests.reporting.conftest import curves, evidence, report, run  # noqa: F401
from tests.running import CHECKOUT, PATIENCE, command_line


@pytest.fixture
def kept(tmp_path, run):  # noqa: F811
    """The directory of a finished run, as far as a page reads it."""
    directory = tmp_path / "mine"
    settings = {"evaluation": {"max_new_tokens": 128, "temperature": 0.0}, "seed": 1}
    write_json(directory / "report.json", run.report | {"settings": settings, "stages": dict.fromkeys(run.curves, {})})
    write_evidence(directory, run.evidence)
    for stage, entries in run.curves.items():
        (directory / stage).mkdir()
        (directory / stage / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return directory


def test_a_page_is_made_without_jax_and_the_verdict_is_said(kept, tmp_path):
    program = (
        "import runpy, sys; sys.argv[0] = 'report'; runpy.run_module('adaspec_jax.report', run_name='__main__'); "
        "print({'jax', 'flax', 'transformers', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, kept, "--out", tmp_path / "page.html"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("The target accepts 67.2 %") and said[-1] == "set()"
    assert said[-2] == f"{tmp_path / 'page.html'} is written."
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Token by token</h2>" in page and "<h3>KL of selected tokens</h3>" in page


def test_runs_of_before_have_a_page_that_says_what_is_missing(kept, tmp_path, capsys, monkeypatch):
    (kept / "evidence.json.gz").unlink()
    arguments = (kept, kept / "report.json", "--out", tmp_path / "page.html")
    status, out, _ = command_line(capsys, monkeypatch, "report", *arguments)
    assert status == 0 and out.count("keeps no evidence") == 2 and "mine: The target accepts" in out
    page = (tmp_path / "page.html").read_text()
    assert page.count("Delete its report.html and call the run&#39;s own command again") == 2
    assert "<h1>Acceptance of 2 runs</h1>" in page


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda kept: (kept / "report.json").unlink(), "has no report.json"),
        (lambda kept: (kept / "evidence.json.gz").write_bytes(b"x"), "evidence.json.gz is damaged"),
        (lambda kept: (kept / "draft" / "metrics.jsonl").write_text('{"step": 1}\nx\n{"step": 2}\n'), "metrics.jsonl"),
    ],
)
def test_what_is_damaged_is_one_line_and_an_older_page_stays(kept, tmp_path, capsys, monkeypatch, spoil, complaint):
    (tmp_path / "page.html").write_text("older")
    spoil(kept)
    status, out, errors = command_line(capsys, monkeypatch, "report", kept, "--out", tmp_path / "page.html")
    assert status == 2 and complaint in errors and errors.count("\n") == 1 and not out
    assert (tmp_path / "page.html").read_text() == "older"


def test_no_run_and_too_many_are_one_line(capsys, monkeypatch):
    assert command_line(capsys, monkeypatch, "report")[0] == 2
    status, _, errors = command_line(capsys, monkeypatch, "report", *["a"] * 13)
    assert status == 2 and "13 runs are more than a page shows" in errors
