"""Which engines can serve a pair, with which command, or why not."""

from adaspec_jax.serving.card import Names, Served, card
from adaspec_jax.serving.engines import ENGINES, NO_PLAIN_DRAFT
from adaspec_jax.serving.heads import (
    config_for,
    in_a_row,
    is_known,
    judge_head,
    refusal,
    takers,
    warnings_for,
)
from adaspec_jax.serving.published import (
    DRAFT_LENGTH,
    Pair,
    config_of,
    ends_in_words,
    head_in,
    pinned_generation,
    read_pair,
    resolving,
    vocabulary_in_words,
)
from adaspec_jax.serving.pushing import check_name, push
from adaspec_jax.serving.verdicts import ANY, DEVICES, Verdict, judge, served_alone, served_by

__all__ = [
    "ANY",
    "DEVICES",
    "DRAFT_LENGTH",
    "ENGINES",
    "NO_PLAIN_DRAFT",
    "Names",
    "Pair",
    "Served",
    "Verdict",
    "card",
    "check_name",
    "config_for",
    "config_of",
    "ends_in_words",
    "head_in",
    "in_a_row",
    "is_known",
    "judge",
    "judge_head",
    "pinned_generation",
    "push",
    "read_pair",
    "refusal",
    "resolving",
    "served_alone",
    "served_by",
    "takers",
    "vocabulary_in_words",
    "warnings_for",
]
