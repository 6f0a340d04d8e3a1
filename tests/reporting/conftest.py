"""A made-up report, and evidence behind it, with every part in them."""

import pytest

from adaspec_jax.reporting.runs import Run

CLASSES = ["digits", "operators", "names", "words", "code", "punctuation", "whitespace", "special", "other"]
TEXTS = ["Anna", " has", " 12", " +", " 3", " =", " 15", ".", "\n"]


def _draft(alpha, low, high, histogram):
    return {
        "alpha": alpha,
        "ci95": [low, high],
        "accepted": 700,
        "judged": 1000,
        "drafted": 1500,
        "block_efficiency": 2.751234,
        "expected_alpha": 0.64,
        "teacher_forced_agreement": 0.66,
        "rounds": sum(histogram),
        "prompts": 200,
        "accepted_histogram": histogram,
    }


@pytest.fixture
def report():
    return {
        "task": "gsm8k",
        "settings": {"temperature": 0.0, "draft_length": 5, "max_new_tokens": 128},
        "environment": {"python": "3.11", "device": "TPU v5 lite"},
        "drafts": {
            "base": _draft(0.52, 0.51, 0.53, [50, 30, 20]),
            "reference": _draft(0.66, 0.65, 0.67, [30, 40, 30]),
            "draft": _draft(0.672, 0.66, 0.68, [20, 40, 40]),
        },
        "paired": {"draft-reference": {"difference": 0.012, "ci95": [0.003, 0.021], "p_value": 0.008}},
        "speed": {
            "plain_tokens_per_second": 200.0,
            "draft": {"tokens_per_second": 350.0, "speedup": 1.75},
        },
    }


COSTS = {
    "promised_by_length": [1.3, 1.5, 1.7, 1.8, 1.85, 1.8],
    "best_draft_length": 5,
    "promised_speedup_at_best": 1.85,
    "promised_speedup": 1.85,
    "first_draft_step_cost": 0.2,
    "draft_step_cost": 0.1,
    "verification_cost": 1.25,
}


def answer(prompt, texts=TEXTS, tokens=None):
    """Accepted but for every fourth token, which was refused, and every eighth, which nobody guessed."""
    count = tokens or len(texts)
    kept = [1 if i % 4 else 0 for i in range(count)]
    refused = [1 if i % 8 == 4 else -1 for i in range(count)]
    tops = [[i % len(texts), (i + 1) % len(texts)] for i in range(count)]
    return {
        "prompt": prompt,
        "text": [i % len(texts) for i in range(count)],
        "tokens": count,
        "accepted": kept,
        "refused": refused,
        "class": [i % len(CLASSES) for i in range(count)],
        "p": [0.8125] * count,
        "q": [0.375] * count,
        "kl": [0.625] * count,
        "gap": [(-0.1, 0.05, 0.3, 0.9)[i % 4] for i in range(count)],
        "target": tops,
        "target_law": [[0.8125, 0.125]] * count,
        "draft": tops,
        "draft_law": [[0.375, 0.25]] * count,
    }


def tally(answers):
    judged = [100] * len(CLASSES)
    return {
        "calls": 40,
        "seconds": 2.0,
        "by_position": {"judged": [100] * 16, "accepted": [90 - i for i in range(16)]},
        "by_depth": {"judged": [100, 80, 60], "accepted": [80, 60, 40]},
        "by_class": {"tokens": judged, "judged": judged, "accepted": [10 * i for i in range(len(CLASSES))]},
        "calibration": {"count": [50.0] * 10, "confidence": [5.0 * i + 2.5 for i in range(10)], "hits": [25.0] * 10}
        | {"ece": 0.25},
        "selected_from_gap": 0.2,
        "answers": answers,
    }


@pytest.fixture
def evidence():
    return {
        "version": 1,
        "classes": CLASSES,
        "greedy": True,
        "fraction": 0.4,
        "against": "reference",
        "positions_in_a_bin": 8,
        "answers_read": 2,
        "plain": {"calls": 100, "seconds": 4.0},
        "prompts": ["How many apples?", "And pears?"],
        "pieces": list(TEXTS),
        "drafts": {name: tally([answer(0), answer(1)]) for name in ("draft", "reference", "base")},
        "rows": [[{"text": "q", "kind": "prompt"}, {"text": "a", "kind": "selected", "gap": 1.25}]],
    }


@pytest.fixture
def curves():
    def entry(step):
        counts = {"kept_by_class": [4] * len(CLASSES), "labels_by_class": [10] * len(CLASSES)}
        return {"step": step, "loss": 2 / step, "kl_kept": 1 / step, "kl_dropped": 0.5 / step} | counts

    return {"target": [{"step": step, "loss": 1 / step} for step in range(1, 99)], "draft": [*map(entry, range(1, 99))]}


@pytest.fixture
def run(report, evidence, curves):
    report["speed"] |= {"draft_length": 5, "draft": report["speed"]["draft"] | COSTS}
    return Run("mine", report, evidence, curves)
