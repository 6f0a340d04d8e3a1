"""Which engines can serve a pair, with which command, or why not."""

from adaspec_jax.serving.engines import (
    DRAFT_LENGTH,
    Pair,
    Verdict,
    config_of,
    ends_in_words,
    head_in,
    judge,
    pinned_generation,
    read_pair,
    vocabulary_in_words,
)
from adaspec_jax.serving.heads import (
    NO_PLAIN_DRAFT,
    config_for,
    in_a_row,
    is_known,
    judge_head,
    refusal,
    takers,
    warnings_for,
)

__all__ = [
    "DRAFT_LENGTH",
    "NO_PLAIN_DRAFT",
    "Pair",
    "Verdict",
    "config_for",
    "config_of",
    "ends_in_words",
    "head_in",
    "in_a_row",
    "is_known",
    "judge",
    "judge_head",
    "pinned_generation",
    "read_pair",
    "refusal",
    "takers",
    "vocabulary_in_words",
    "warnings_for",
]
