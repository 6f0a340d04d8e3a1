"""How good an answer is, by what its task asks for: what a lossy method loses."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec

from adaspec_jax.measuring.run_code import passes_tests

Score = Callable[[str, str], float]  # (what was said, what a good answer says, or the tests it passes) -> 0 to 1

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def same_last_number(said: str, answer: str) -> float:
    """Whether both end with the same number, commas aside: how GSM8K is scored."""
    found = [_NUMBER.findall(text) for text in (said, answer)]
    if not all(found):
        return 0.0
    ours, theirs = (float(numbers[-1].replace(",", "")) for numbers in found)
    return float(ours == theirs)


def rouge_l(said: str, answer: str) -> float:
    """ROUGE-L's F-measure, with stemming."""
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(answer, said)["rougeL"].fmeasure


_OF_TASK: dict[str, Score] = {
    "gsm8k": same_last_number,
    "word_problems": same_last_number,
    "cnn_dailymail": rouge_l,
    "xsum": rouge_l,
}


BY_TESTS = ("mbpp",)  # whose answers are programs


def score_of(task: str | None, *, run_code: bool = False) -> tuple[Score | None, list[str]]:
    """The task's score, or None; and a note where something is missing for it. `run_code`: programs may be run."""
    if task in BY_TESTS:
        return (passes_tests, []) if run_code else (None, [f"{task} is scored by running its answers: --run_code"])
    score = _OF_TASK.get(task)
    if score is rouge_l and not find_spec("rouge_score"):
        return None, [f"{task} is scored by rouge-score, which is not installed (pip install rouge-score)"]
    return score, []
