"""The fastest of a table, and how sure that is, on times made up for it; answers are scored as tasks ask."""

import numpy as np
import pytest

from adaspec_jax import reporting
from adaspec_jax.measuring.figures import Tally
from adaspec_jax.measuring.scores import rouge_l, same_last_number, score_of
from adaspec_jax.measuring.verdict import best_of, faster_yet


def tally(seconds):
    batches = len(seconds)
    ones = np.ones(batches, int)
    counts = {name: ones for name in ("accepted", "judged", "drafted", "committed", "rounds", "identical", "rows")}
    times = {"seconds": np.asarray(seconds, float), "prefill_seconds": np.zeros(batches), "tokens": 10 * ones}
    return Tally(**counts, **times, histogram=np.ones(1), refused=np.ones(1))


def test_the_fastest_and_the_share_of_resamples_in_which_it_is():
    rng = np.random.default_rng(0)
    plain = rng.uniform(0.9, 1.1, 40)
    sure = best_of({"plain": tally(plain), "a": tally(plain / 2), "b": tally(plain / 1.5)}, "plain")
    assert (sure.label, sure.first_share) == ("a", 1.0)
    assert sure.speedup == pytest.approx(2) == pytest.approx(sure.ci95[0]) == pytest.approx(sure.ci95[1])
    # Of two ways whose times are shuffles of one another neither is better: about half of the resamples each.
    shuffled = best_of({"plain": tally(plain), "a": tally(rng.permutation(plain / 2)), "b": tally(plain / 2)}, "plain")
    assert shuffled.label in ("a", "b") and 0.3 < shuffled.first_share < 0.7
    slow = best_of({"plain": tally(plain), "a": tally(2 * plain)}, "plain")
    assert (slow.label, slow.speedup) == ("plain", 1.0)


def test_a_lossy_way_never_wins_and_is_named_where_it_is_faster():
    plain = np.full(8, 1.0)
    lossless = {"plain": tally(plain), "a": tally(plain / 2)}
    best = best_of(lossless, "plain")
    assert best.label == "a" and faster_yet(best, {}, lossless, "plain") is None
    assert faster_yet(best, {"loose": tally(plain / 1.9)}, lossless, "plain") is None
    loose = faster_yet(best, {"loose": tally(plain / 4), "looser": tally(plain / 3)}, lossless, "plain")
    assert (loose.label, loose.speedup, loose.first_share) == ("loose", 4.0, 1.0)


@pytest.mark.parametrize("best", ["a", "plain"])
@pytest.mark.parametrize("score", [None, 0.25])
def test_the_words_of_a_verdict_tell_the_lossy_from_the_lossless(best, score):
    plain = np.full(8, 1.0)
    found = best_of({"plain": tally(plain), "a": tally(plain / 2 if best == "a" else plain * 2)}, "plain")
    loose = best_of({"plain": tally(plain), "loose": tally(plain / 4)}, "plain")
    report = {"methods": {"loose": {"score": score}}, "plain": {"score": score and 0.5}}
    report["verdict"] = found.record | {"held_back": None, "lossy": loose.record}
    first, last = reporting.verdict_in_words(report, "command").splitlines()
    costs = "score 0.250, plain decoding's 0.500" if score else "no score says what that costs"
    assert first.startswith("Lossy and faster: loose, 4.00x plain decoding (4.00 to 4.00)") and costs in first
    assert "loose" not in last and "the fastest of the lossless" in last and "worth" not in last
    near = {"lossless": True, "speedup": 0.5, "tokens_per_target_call": 3.0}
    methods = {"a": near, "b": near | {"speedup": 0.4}, "loose": near | {"lossless": False, "speedup": 4.0}, "c": {}}
    alone = {"verdict": report["verdict"] | {"lossy": None}, "methods": methods}
    said = reporting.verdict_in_words(alone, "command")
    why = "a comes nearest: a round gives 3.00 tokens, and takes as long as 6.00 plain steps."
    assert said.endswith(why) == (best == "plain")
    assert "lossless" not in said and ("none of these is worth it here" in said) == (best == "plain")


def test_times_of_repetitions_add_up_and_counts_do_not():
    once, again = tally([1.0, 2.0]), tally([3.0, 4.0])
    both = once.timed_again(again).timed_again(again)
    assert both.repetitions == 3 and both.seconds.tolist() == [7.0, 10.0] and both.tokens.tolist() == [30, 30]
    assert both.rounds.tolist() == once.rounds.tolist() and both.rows.tolist() == once.rows.tolist()


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        ("3 + 4 = 7. The final answer is: 7", "#### 7", 1.0),
        ("It costs $1,200.50.", "The final answer is: 1200.5", 1.0),
        ("It is -3", "3", 0.0),
        ("7 or 8", "7", 0.0),
        ("none", "7", 0.0),
    ],
)
def test_the_last_number_decides(said, answer, score):
    assert same_last_number(said, answer) == score


def test_tasks_have_their_scores():
    assert score_of("gsm8k") == (same_last_number, []) and score_of("alpaca") == (None, []) == score_of(None)


def test_summaries_are_scored_by_rouge_l_or_it_is_said_what_is_missing(monkeypatch):
    monkeypatch.setattr("adaspec_jax.measuring.scores.find_spec", lambda name: None)
    said = "xsum is scored by rouge-score, which is not installed (pip install rouge-score)"
    assert score_of("xsum") == (None, [said])
    pytest.importorskip("rouge_score")
    assert rouge_l("the cat sat", "the cat sat") == 1.0 and 0 < rouge_l("the dog sat", "the cat sat") < 1
