"""A made-up report with every part in it."""

import pytest


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
        "rounds": 300,
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
