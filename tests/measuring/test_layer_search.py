"""A search finds the set that is fastest by a rate made up for it, and goes on where it was stopped."""

import json

import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.measuring.layer_search import Journal, search

LAYERS, BEST, FIRST = 4, {1, 2, 3, 6}, (2, 3)
ABOUT = {"length": 8, "num_layers": LAYERS}


def rate(asked):
    """Sublayers that are in the right place, noted as they are asked for."""

    def of(skipped):
        asked.append(skipped)
        return float(sum((n in skipped) == (n in BEST) for n in range(2 * LAYERS)))

    return of


def run(path, asked, trials):
    ranked = search(rate(asked), LAYERS, Journal(path, ABOUT), trials=trials, first=FIRST)
    assert len(ranked) == len(set(ranked)) and FIRST in ranked
    return ranked[0]


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="optuna is not installed")


def test_the_fastest_set_is_found_and_the_first_is_the_one_to_begin_with(optuna, tmp_path):
    asked = []
    best = run(tmp_path / "s.jsonl", asked, 60)
    assert asked[0] == FIRST and set(best) == BEST and len(asked) == len(set(asked)) < 60
    assert tuple(range(2 * LAYERS)) not in asked


def test_a_search_that_was_stopped_goes_on_and_measures_nothing_twice(optuna, tmp_path):
    asked, path = [], tmp_path / "s.jsonl"

    def stopped(skipped):
        if len(asked) == 7:
            raise KeyboardInterrupt
        return rate(asked)(skipped)

    with pytest.raises(KeyboardInterrupt):
        search(stopped, LAYERS, Journal(path, ABOUT), trials=60, first=FIRST)
    assert len(Journal(path, ABOUT).tried) >= 7 and len(asked) == 7
    assert set(run(path, asked, 80)) == BEST
    assert len(asked) == len(set(asked)) and len(Journal(path, ABOUT).tried) == 80
    before = len(asked)
    assert set(run(path, asked, 80)) == BEST and len(asked) == before  # all trials were made


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no journal of a search"),
        ("", r"is of another search \(everything\)"),
        (json.dumps(ABOUT | {"length": 5}), r"is of another search \(length\); delete it, or choose another --out"),
        (json.dumps(ABOUT) + '\n{"skipped": [1]}', "is no journal of a search"),
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path, content, says):
    (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(UserError, match=says):
        Journal(tmp_path / "s.jsonl", ABOUT)
