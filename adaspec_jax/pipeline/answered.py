"""Requests that were answered, as rows to learn from: tokens, where the answer begins, where a guess was refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adaspec_jax.decoding import Generation
from adaspec_jax.training import Batch

_SHORTEST = 64  # a batch is as wide as its longest request, rounded up to this times a power of two


class Request(NamedTuple):
    """What is kept of one that was answered: its tokens, where the answer begins, where a guess was refused."""

    number: int
    tokens: list[int]
    start: int
    refused: list[int]

    @classmethod
    def of(cls, number: int, made: Generation, row: int, start: int, longest: int) -> Request:
        """Of a row of a generation on the host."""
        end = min(int(made.lengths_B[row]), longest)
        refused = np.flatnonzero(made.rejected_BS[row, start:end] >= 0) + start
        return cls(number, made.tokens_BS[row, :end].tolist(), min(start, end), refused.tolist())


def batch_of(requests: Sequence[Request], at: str) -> tuple[Batch, np.ndarray]:
    """The requests as rows of one of few widths, whose labels are what is learnt, and bool_BT: all of the answers."""
    longest = max(len(request.tokens) for request in requests)
    shape = len(requests), _SHORTEST << (-(-longest // _SHORTEST) - 1).bit_length()
    tokens_BT, refused_BT, answers_BT = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
    for row, request in enumerate(requests):
        tokens_BT[row, : len(request.tokens)] = request.tokens
        refused_BT[row, request.refused] = True
        answers_BT[row, request.start : len(request.tokens)] = True
    return Batch(tokens_BT, refused_BT if at == "refused" else answers_BT), answers_BT
