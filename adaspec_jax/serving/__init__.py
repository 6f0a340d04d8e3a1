"""Which engines can serve a pair, with which command, or why not."""

from adaspec_jax.serving.engines import (
    DRAFT_LENGTH,
    Pair,
    Verdict,
    ends_in_words,
    judge,
    pinned_generation,
    read_pair,
    vocabulary_in_words,
)

__all__ = [
    "DRAFT_LENGTH",
    "Pair",
    "Verdict",
    "ends_in_words",
    "judge",
    "pinned_generation",
    "read_pair",
    "vocabulary_in_words",
]
