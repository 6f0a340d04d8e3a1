"""Vocabulary rows that no token owns: matrices are padded to round sizes, and nobody may draw the padding."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jax import Array

RULED_OUT = -1e9  # a logit: probability zero, and finite in float32


class Vocabulary(Protocol):
    vocab_size: int
    num_tokens: int


def rule_out(logits: Array, sizes: Vocabulary) -> Array:
    """Logits [..., V], those of rows past `num_tokens` ruled out; the same array where there are none."""
    if sizes.num_tokens == sizes.vocab_size:
        return logits
    ruled_out_V = np.where(np.arange(sizes.vocab_size) < sizes.num_tokens, 0, RULED_OUT).astype(np.float32)
    return logits + ruled_out_V.reshape((1,) * (logits.ndim - 1) + (-1,))
