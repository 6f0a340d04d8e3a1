"""The verdict says which draft, how sure, whether to serve it, and why not; it never says more than was measured."""

import io

import pytest

from adaspec_jax.reporting import print_table, table, verdict
from adaspec_jax.reporting.verdict import best_draft
from tests.reporting.conftest import COSTS


def test_a_better_draft_that_pays_is_named_with_its_length(run):
    said = verdict(run.report, run.evidence)
    assert said[0] == (
        "The target accepts 67.2 % of the guesses of the AdaSPEC draft (95 % interval 66.0 to 68.0), 1.2 points more "
        "than of the reference (DistillSpec) (interval +0.3 to +2.1, p = 0.008)."
    )
    assert said[1] == (
        "Worth serving on this device: the method vanilla with 5 guesses a round measured 1.75 times plain decoding; "
        "the costs of its parts promise 1.85 times there."
    )
    assert len(said) == 2


def test_drafts_that_are_not_told_apart_are_not_called_better(run):
    run.report["paired"]["draft-reference"] = {"difference": 0.012, "ci95": [-0.003, 0.027], "p_value": 0.12}
    assert (
        "against 66.0 % of the reference (DistillSpec): 200 prompts do not tell the two apart (+1.2"
        in verdict(run.report)[0]
    )


def test_where_the_baseline_is_accepted_more_it_is_the_one_that_is_named(run):
    run.report["drafts"]["reference"]["alpha"] = 0.7
    run.report["paired"]["draft-reference"] = {"difference": -0.028, "ci95": [-0.04, -0.02], "p_value": 1e-4}
    said = verdict(run.report)[0]
    assert said.startswith("The target accepts 70.0 % of the guesses of the reference (DistillSpec)")
    assert "2.8 points more than of the AdaSPEC draft (interval +2.0 to +4.0, p < 0.001)" in said


def test_a_round_of_two_target_calls_gives_what_both_of_them_commit(run):
    """As of a draft that is the target itself, at look-ahead slots."""
    run.report["speed"]["draft"] = COSTS | {"speedup": 0.5, "best_draft_length": 0, "verification_cost": 1.9}
    run.report["drafts"]["draft"]["rounds"] *= 2
    run.report["drafts"]["draft"]["block_efficiency"] = 1.25
    assert "Why: a round gives 2.50 tokens and costs 2.50 target steps" in verdict(run.report, run.evidence)[2]


@pytest.mark.parametrize(
    ("speedup", "words"),
    [(0.5, "slower than plain decoding (0.50 times)"), (1.01, "no faster than plain decoding (1.01 times)")],
)
def test_where_it_does_not_pay_the_costs_say_why(run, speedup, words):
    costs = COSTS | {"speedup": speedup, "best_draft_length": 0, "verification_cost": 2.9}
    run.report["speed"]["draft"] = costs
    run.report["models"] = {"target": 850_000, "draft": 150_000}
    worth, why, waits, small = verdict(run.report, run.evidence)[1:]
    assert worth.startswith("Not worth serving as measured here") and words in worth
    assert "no draft length is faster than plain decoding" in worth
    assert why == (
        "Why: a round gives 2.75 tokens and costs 3.50 target steps (0.60 for 5 draft steps, 2.90 to verify), which "
        "would be 0.79 times plain decoding."
    )
    assert "a round took as long as 1.25 plain steps" in waits and "40 rounds against 100 plain steps" in waits
    assert "850,000 parameters" in small and "150,000" in small


def test_costs_that_promise_a_gain_are_no_reason_for_a_loss(run):
    run.report["speed"]["draft"] = COSTS | {"speedup": 0.74, "best_draft_length": 5, "verification_cost": 1.9}
    run.report["models"] = {"target": 850_000, "draft": 150_000}
    worth, why, waits = verdict(run.report, run.evidence)[1:]
    assert worth.startswith("Not worth serving as measured here") and "promise 1.85 times there" in worth
    assert why == (
        "The costs of its parts, each timed alone, do not say why: a round gives 2.75 tokens and costs 2.50 target "
        "steps (0.60 for 5 draft steps, 1.90 to verify), which would be 1.10 times plain decoding. Where other work "
        "keeps the machine busy, either may be off: benchmark it, --until 0.1."
    )
    assert waits.startswith("While decoding, a round took as long as 1.25 plain steps")


def test_a_finished_run_prints_the_verdict_of_its_page(run):
    run.report["speed"]["draft"] |= {"speedup": 0.9} | COSTS
    sentences = verdict(run.report, run.evidence)
    assert any("While decoding" in sentence for sentence in sentences)
    assert table(run.report, run.evidence).splitlines()[: len(sentences)] == sentences
    shown = io.StringIO()
    print_table(run.report, shown, run.evidence)
    assert shown.getvalue().startswith("\n".join(sentences))


def test_a_qualifier_and_an_untrained_draft_are_never_the_best(run):
    run.report["drafts"]["qualifier"] = run.report["drafts"]["base"] | {"alpha": 0.99}
    run.report["drafts"]["base"] = run.report["drafts"]["base"] | {"alpha": 0.98}
    assert best_draft(run.report) == "draft"


def test_a_report_of_one_draft_or_of_none_has_a_verdict_too(report):
    assert verdict({"drafts": {}}) == [] and verdict({"drafts": {"draft": {"alpha": None}}}) == []
    alone = {"drafts": {"draft": report["drafts"]["draft"] | {"prompts": 1}}}
    assert verdict(alone) == ["The target accepts 67.2 % of the guesses of the draft."]


def test_a_head_is_named_by_the_method_that_measured_it(run):
    run.report["settings"]["draft"] = {"kind": "eagle3"}
    assert "the method eagle3_chain with 5 guesses" in " ".join(verdict(run.report, run.evidence))


def test_time_and_costs_that_contradict_each_other_are_not_called_a_gain(run):
    run.report["speed"]["draft"] |= {"speedup": 1.09, "best_draft_length": 0}
    said = " ".join(verdict(run.report, run.evidence))
    assert "Not settled" in said and "1.09 times" in said and "Worth serving" not in said
