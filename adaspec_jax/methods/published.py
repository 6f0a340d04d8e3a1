"""What others measured with these systems: to stand beside our figures, never in their place.

Other targets, drafts, texts and machines than ours, and often another implementation's own baseline: a third party's
figures are about half of the authors' (compare the two kinds below), and machines swap the order of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """A claim: the speed-up over plain decoding of the same target, as it was stated."""

    speedup: str
    tokens_per_target_call: float | None  # bonus token included
    models: str
    machine: str
    source: str
    third_party: bool = False


def _spec_bench(speedup: str, calls: float) -> Published:
    """A row of Spec-Bench's leaderboard (arXiv 2401.07851): all six categories, greedy, half precision, batch 1."""
    return Published(speedup, calls, "Vicuna-7B v1.3", "one A100", "Spec-Bench's leaderboard", third_party=True)


_ABSTRACT, _RECALLED = "the paper's abstract", "recalled, not looked up again"
_EAGLES = ("Vicuna-13B", "two RTX 3090", "the README of its code")

PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "falcon": (Published("2.91 to 3.51", None, "Vicuna and Llama-2-chat", "not stated", "notes on the abstract"),),
    "pass": (Published("up to 1.30", None, "Llama-7B, text and code", "not stated", _ABSTRACT),),
    "vanilla": (_spec_bench("1.52", 2.28),),  # with a draft of 68 M parameters
    "tli": (Published("up to 2.5", None, "not stated", "not stated", "transformers' documentation"),),
    "slem": (Published("1.5 to 2.0", None, "not stated", "not stated", "transformers' documentation"),),
    "pard": (
        Published("3.83", None, "Llama-3.1-8B, three tasks", "one A100", "the README of its code"),
        Published("5.13", None, "the same, PARD-2", "one A100", "the README of its code"),
    ),
    "specexec": (
        Published("up to 18.7", None, "50B and larger, weights offloaded", "consumer GPUs", "notes on the paper"),
    ),
    "edgellm": (Published("up to 9.3", None, "models beyond the device's memory", "phones", _ABSTRACT),),
    "prompt_lookup": (_spec_bench("1.66", 1.75),),
    "rest": (
        _spec_bench("1.48", 1.82),
        Published("1.62 to 2.36", None, "7B and 13B, HumanEval and MT-bench", "one A6000", _ABSTRACT),
    ),
    "lookahead": (
        _spec_bench("1.34", 1.64),
        Published("up to 1.8", None, "chat models on MT-bench", "one A100", "notes on the paper"),
    ),
    "token_recycling": (
        _spec_bench("2.22", 2.73),
        Published("2.09", None, "Vicuna-7B", "not stated", "the README of its code"),
    ),
    "sam": (Published("1.84", None, "Vicuna-7B", "one A6000", "the README of its code"),),
    "llma": (Published("over 2", None, "LLaMA, answers that repeat retrieved text", "one V100", _ABSTRACT),),
    "anpd": (Published("up to 3.67", None, "the LLaMA family", "not stated", _RECALLED),),
    "jacobi": (Published("up to 1.38", None, "MBart and Marian, translation", "not stated", _RECALLED),),
    "draft_and_verify": (Published("up to 1.99", None, "Llama 2", "not stated", "notes on the paper"),),
    "swift": (Published("1.3 to 1.6", None, "Llama-2-13B, CodeLlama", "not stated", _RECALLED),),
    "kangaroo": (
        Published("up to 2.04", None, "Vicuna-7B, Spec-Bench", "not stated", "notes on the paper; 1.68 in version 1"),
    ),
    "amphista": (Published("up to 2.75", None, "Vicuna-33B, MT-Bench", "not stated", _ABSTRACT),),
    "ctc": (Published("2.36 to 2.78", None, "Vicuna and Llama-2, MT-Bench", "not stated", "notes on the paper"),),
    "layerskip": (
        Published("up to 2.16", None, "Llama 2 trained for early exits, CNN/DailyMail", "not stated", _ABSTRACT),
    ),
    "vadusa": (Published("up to 4", None, "text to speech, LibriTTS", "not stated", "notes on the paper"),),
    "eagle": (_spec_bench("2.10", 3.58), Published("3", None, *_EAGLES)),
    "eagle2": (_spec_bench("2.36", 4.34), Published("4", None, *_EAGLES)),
    "eagle3": (
        Published("3.02", 5.71, "Vicuna-13B v1.3", "one A100", "Spec-Bench's leaderboard", third_party=True),
        Published("5.6", None, *_EAGLES),
    ),
    "hydra": (_spec_bench("2.07", 3.26),),
    "hydra_plus": (Published("2.5 to 2.7", None, "Vicuna", "not stated", _ABSTRACT),),
    "medusa": (
        _spec_bench("1.71", 2.31),
        Published("2.2 to 3.6", None, "Vicuna and Zephyr", "not stated", _ABSTRACT),
    ),
    "mtp": (Published("1.8", None, "DeepSeek-V3", "not stated", "its report, as others quote it"),),
    "specdec_pp": (Published("2.04", None, "Llama-2-chat 7B and 70B, Alpaca", "two A100", "notes on the paper"),),
    "on_the_fly": (Published("1.2 to 3.4", None, "LLaMA, BLOOM and OPT", "not stated", "notes on the paper"),),
    "bild": (Published("about 2", None, "T5 and mT5, translation and summaries", "one T4", _ABSTRACT),),
    "magicdec": (Published("up to 2", None, "Llama-2-7B-32K, long texts, batches of 64 on", "8 A100", _RECALLED),),
}
