"""Strangers' inputs end in a result or in one line; `python -m tests.faults.fuzz --cases 100000` tries many more."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from hypothesis.configuration import set_hypothesis_home_dir

from adaspec_jax import models
from adaspec_jax.errors import UserError
from tests.faults import hostile
from tests.faults.hostile import DOORS, REFUSED, TAKEN
from tests.faults.watch import Watch


@pytest.fixture(scope="module")
def watch():
    hostile.prepare()
    with tempfile.TemporaryDirectory(prefix="hypothesis.") as notes:
        set_hypothesis_home_dir(notes)
        yield Watch(others=(notes,))


SOME = settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", DOORS)
def test_whatever_a_stranger_hands_over_is_taken_or_refused_in_one_line(name, watch, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes = set()

    @SOME
    @given(some.randoms(use_true_random=False))
    def tried(chance):
        with tempfile.TemporaryDirectory() as place:
            outcome = hostile.opened(DOORS[name], chance, Path(place, "door"), watch)
        outcomes.add(outcome)
        assert outcome in (TAKEN, REFUSED), outcome

    tried()
    assert outcomes  # it was opened


def wrong(act):
    def door(chance, place):
        act(place)

    return door


@pytest.mark.parametrize(
    "act, said",
    [
        (lambda place: {}["x"], "KeyError: 'x'"),
        (lambda place: (place.parent / "elsewhere").write_text("x"), "writes "),
        (lambda place: __import__("subprocess").run(["true"]), "subprocess.Popen"),
        (lambda place: __import__("os").system("true"), "os.system"),
        (lambda place: __import__("time").sleep(9), "TimeoutError: no end after 1 s"),
    ],
)
def test_a_door_that_does_what_it_should_not_is_found_out(act, said, tmp_path):
    outcome = hostile.opened(wrong(act), None, tmp_path / "door", Watch(seconds=1))
    assert outcome.startswith(said), outcome


def test_a_head_described_as_larger_than_can_be_counted_is_one_line(tmp_path):
    """Found by the fuzz."""
    shutil.copytree(hostile._head(), tmp_path / "head")
    file = tmp_path / "head" / "drafter.json"
    said = json.loads(file.read_text())
    said["sizes"]["hidden_size"] = 10**18
    file.write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"would have the shape \[1000000000000000000, "):
        models.load_head(tmp_path / "head", hostile._target())
