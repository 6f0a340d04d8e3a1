"""What was found in deliberately spoiled runs is found again, from the evidence that was recorded of them.

`python -m tests.diagnosis.planted --workdir DIR` trains and spoils them anew.
"""

import json

import pytest

from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.judge import judge
from tests.diagnosis.planted import CASES, judged, markdown
from tests.running import CHECKOUT

RESULTS = CHECKOUT / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["diagnose.json", "diagnose_tune.json"])
def test_recorded_evidence_is_judged_as_its_results_say(name):
    recorded = json.loads((RESULTS / name).read_text())
    assert set(recorded["evidence"]) == set(CASES)
    assert judged(recorded["evidence"]) == recorded["results"]


def test_nothing_is_found_in_healthy_runs_and_capacity_alone_in_one_that_is_limited_by_it():
    found = judged(json.loads((RESULTS / "diagnose.json").read_text())["evidence"])
    healthy = {name: result["found"] for name, result in found.items() if name.startswith("healthy")}
    assert len(healthy) == 2 and not any(healthy.values())
    assert found["narrow draft"]["found"] == ["capacity"]


def test_planted_causes_are_found_one_for_each_line_and_both_of_two():
    found = judged(json.loads((RESULTS / "diagnose.json").read_text())["evidence"])
    single = [name for name, case in CASES.items() if len(case.planted) == 1]
    assert sum(set(CASES[name].planted) <= set(found[name]["found"]) for name in single) >= 10
    double = [name for name, case in CASES.items() if len(case.planted) == 2]
    assert len(double) == 3 and all(set(CASES[name].planted) <= set(found[name]["found"]) for name in double)


def test_the_page_has_the_table_of_the_results():
    results = json.loads((RESULTS / "diagnose.json").read_text())["results"]
    assert markdown(results) in (CHECKOUT / "docs" / "diagnose.md").read_text()


def test_every_line_of_the_checklist_is_on_the_page_and_all_but_one_was_planted():
    page = (CHECKOUT / "docs" / "diagnose.md").read_text()
    recorded = json.loads((RESULTS / "diagnose.json").read_text())["evidence"]
    lines = {finding["check"] for finding in judge(Evidence.of_json(recorded["healthy"]))["findings"]}
    assert all(f"| {line} | " in page for line in lines)
    assert lines - {check for case in CASES.values() for check in case.planted} == {"prompts measured"}
