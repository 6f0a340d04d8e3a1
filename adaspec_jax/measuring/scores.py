"""How good an answer is, by what its task asks for: what a lossy method loses."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from adaspec_jax.measuring.run_code import passes_tests

Score = Callable[[str, str], float]  # (what was said, what a good answer says, or the tests it passes) -> 0 to 1

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
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


def holds_an_answer(said: str, answers: Sequence[str]) -> float:
    """Whether one of the answers stands in what is said, word for word, but for case, articles and punctuation."""
    whole = f" {_words(said)} "
    return float(any(f" {words} " in whole for words in map(_words, answers) if words))


def _words(text: str) -> str:
    """As SQuAD's evaluation compares answers; and " 's" of tokenised text is "'s"."""
    bare = re.sub(r"\s+'s\b", "'s", text.lower()).translate(_NO_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


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
