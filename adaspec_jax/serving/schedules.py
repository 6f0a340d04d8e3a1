"""A schedule, how many guesses at which batch size, as servers take it.

- vLLM: docs/features/speculative_decoding/dynamic_speculative_decoding.md, `num_speculative_tokens_per_batch_size`: a
  list of [first, last, guesses], the first from 1 on; its own documentation names EAGLE, EAGLE-3 and DFlash as tried.
- SGLang: docs/advanced_features/speculative_decoding.md. Its `--speculative-adaptive` is for EAGLE and EAGLE-3; a draft
  model (STANDALONE) has one number of guesses as long as the server runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ranges(guesses: Mapping[int, int]) -> list[list[int]]:
    """[[first batch size, last, guesses], ...] from 1 on without a gap, neighbours of equal guesses as one.

    A size between two measured ones is taken as the larger.
    """
    found: list[list[int]] = []
    for size in sorted(guesses):
        first = found[-1][1] + 1 if found else 1
        if found and found[-1][2] == guesses[size]:
            found[-1][1] = size
        else:
            found.append([first, size, guesses[size]])
    return found


def vllm_settings(draft: str, guesses: Mapping[int, int]) -> dict[str, Any] | None:
    """What --speculative-config takes as JSON; None where no batch size gains by guesses."""
    most = max(guesses.values())
    if not most:
        return None
    settings = {"method": "draft_model", "model": draft, "num_speculative_tokens": most}
    return settings | {"num_speculative_tokens_per_batch_size": ranges(guesses)}


def sglang_options(guesses: Mapping[int, int]) -> dict[str, str | None]:
    """{batch size: the options of a server that mostly runs at it}; None where plain decoding is to be preferred."""
    return {str(size): _steps(count) if count else None for size, count in sorted(guesses.items())}


def _steps(count: int) -> str:
    return (
        f"--speculative-algorithm STANDALONE --speculative-num-steps {count} --speculative-eagle-topk 1 "
        f"--speculative-num-draft-tokens {count + 1}"
    )
