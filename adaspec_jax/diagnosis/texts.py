"""Of token rows alone: what prompts have in common, what is new in some, and which answers go round in circles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

LEAST_FRAME = 4  # tokens that all prompts share at an end, to be called a frame
LONGEST_PERIOD, LEAST_LOOP, LEAST_TURNS = 48, 24, 3  # of a repetition, in tokens, and how often it is said
_MOST_OF_IT = 0.8
_ENOUGH = 0.98  # of the training prompts have it: rows that were cut, or written by hand, do not count


def frame_of(prompts: Sequence[np.ndarray], *, end: bool) -> np.ndarray:
    """The tokens with which nearly all prompts end, or begin, where these are as many as a frame has; else none."""
    if len(prompts) < 2:
        return np.empty(0, np.int32)
    turned = [prompt[::-1] if end else prompt for prompt in prompts]
    shared = []
    for at in range(min(map(len, turned)) - 1):
        token, often = Counter(int(prompt[at]) for prompt in turned).most_common(1)[0]
        if often < _ENOUGH * len(turned):
            break
        shared.append(token)
    found = np.array(shared[::-1] if end else shared, np.int32)
    return found if len(found) >= LEAST_FRAME else found[:0]


def has_frame(prompt: np.ndarray, frame: np.ndarray, *, end: bool) -> bool:
    """Whether the prompt has it, but for a few tokens at its inner end: a question mark may have slipped in there."""
    size = math.ceil(_MOST_OF_IT * len(frame))
    mine, wanted = (prompt[-size:], frame[-size:]) if end else (prompt[:size], frame[:size])
    return np.array_equal(mine, wanted) if size else True


def framed(prompt: np.ndarray, frame: np.ndarray, *, end: bool) -> np.ndarray:
    """The prompt with the frame, where it lacks it."""
    if has_frame(prompt, frame, end=end):
        return prompt
    return np.concatenate([prompt, frame] if end else [frame, prompt]).astype(np.int32)


def new_pairs(prompts: Iterable[np.ndarray], known: Iterable[np.ndarray]) -> float:
    """Share of the prompts' pairs of neighbouring tokens that none of the known ones has."""
    seen = set().union(*map(_pairs, known))
    pairs = [pair for prompt in prompts for pair in _pairs(prompt)]
    return sum(pair not in seen for pair in pairs) / max(len(pairs), 1)


def _pairs(prompt: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(prompt[:-1].tolist(), prompt[1:].tolist(), strict=True))


def goes_round(answer: np.ndarray) -> bool:
    """Whether a text's end says the same thing again and again."""
    for period in range(1, min(LONGEST_PERIOD, len(answer) // LEAST_TURNS) + 1):
        same = answer[period:] == answer[:-period]
        run = len(same) if same.all() else int(np.argmin(same[::-1]))
        if run + period >= max(LEAST_LOOP, LEAST_TURNS * period):
            return True
    return False


def unigram_nats(answers: Sequence[np.ndarray]) -> float:
    """Nats per token that these texts' own shares of each token leave."""
    counts = np.array(list(Counter(np.concatenate(answers).tolist()).values()), np.float64)
    return float(-(counts / counts.sum()) @ np.log(counts / counts.sum()))
