"""A short form of the campaign; `python -m tests.faults.campaign --runs 300 --workdir DIR` is the whole."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.faults.campaign import KINDS
from tests.running import CHECKOUT, PATIENCE


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A function from arguments to (status, result, what was printed); all share one undisturbed run."""
    base = tmp_path_factory.mktemp("campaign")

    def run(*arguments):
        where = ("--workdir", base, "--json", base / "result.json", "--one_process", "--jobs", "1")
        command = [sys.executable, "-m", "tests.faults.campaign", *map(str, (*where, *arguments))]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE, env=environment)
        said = done.stdout + done.stderr
        assert (base / "result.json").exists(), said
        return done.returncode, json.loads((base / "result.json").read_text()), said

    return run


@pytest.mark.parametrize("kinds", [("kill", "power"), pytest.param(KINDS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_a_run_that_was_killed_stopped_damaged_or_lost_its_power_ends_as_an_undisturbed_one(campaign, kinds):
    status, result, said = campaign("--runs", len(kinds))
    assert status == 0 and result["failures"] == [], said
    assert result["kinds"] == Counter(kinds)


def test_a_build_that_never_asks_for_anything_to_be_on_the_disk_fails(campaign):
    status, result, said = campaign("--runs", 6, "--only", "power", "--without_fsync")  # two of them are such cuts
    assert status == 1 and len(result["failures"]) == 2, said
    assert all(row["kind"] == "power" for row in result["failures"])
