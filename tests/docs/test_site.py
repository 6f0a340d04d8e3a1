"""The site builds without a warning, every page stands in it, and the tutorial's commands do what it says."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.blocks import PAGES, blocks_of, commands_of
from tests.house import COMMANDS
from tests.running import CHECKOUT, PATIENCE

TUTORIAL = CHECKOUT / "docs" / "tutorial.md"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the site's tools are in requirements-dev.txt")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", CHECKOUT / "docs", tmp_path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        if page.parent.name == "docs":
            assert (tmp_path / f"{page.stem}.html").is_file()
    reference, commands = ((tmp_path / name).read_text() for name in ("reference.html", "commands.html"))
    assert "select_top_fraction" in reference and "draft_length" in commands


def test_the_readme_is_short_has_one_picture_and_leads_to_files_that_are_there():
    text = (CHECKOUT / "README.md").read_text()
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert len(text.splitlines()) < 150 and len(pictures) == 1
    for place in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (CHECKOUT / place).is_file(), place


def test_every_command_has_its_help_on_the_page_of_commands():
    shown = (CHECKOUT / "docs" / "commands.md").read_text()
    assert [line[3:] for line in shown.splitlines() if line.startswith("## ")] == COMMANDS
    for command in COMMANDS:
        assert f"python -m adaspec_jax.{command} --help" in shown


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    """All its commands, in order, in a copy of the checkout; set-up is the one that these tests run in."""
    for name in ("adaspec_jax", "configs", "launch"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    said = ""
    for block in blocks_of(TUTORIAL):
        for words in commands_of(block, {}):
            if words[0] == "source":
                continue
            if words[1].startswith("launch/"):
                words = ["python", "-m", "adaspec_jax.train", "--config", "configs/quickstart.py"]
                words += ["--workdir", "runs/quickstart"]
            environment = os.environ | {"PATH": path, "PYTHONPATH": "."}
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stderr[-2000:])
            said += done.stdout
    assert "AdaSPEC draft minus reference" in said and "can serve" in said
    assert (tmp_path / "runs/quickstart/report.html").is_file() and (tmp_path / "benchmark.json").is_file()
