"""How many examples a run will train on, as far as that is known without reading its data."""

from __future__ import annotations

import math
from pathlib import Path

from adaspec_jax import data
from adaspec_jax.config import Answers, Data
from adaspec_jax.files import open_unpacked
from adaspec_jax.pipeline.examples import SMALLEST_SHARE

# Rows of the training splits, where a task is not generated.
EXAMPLES = {"gsm8k": 7473, "alpaca": 52_002, "alpaca_chats": 52_002, "mbpp": 374, "cnn_dailymail": 287_113}
EXAMPLES |= {"xsum": 204_045, "tinystories": 2_119_719}


def examples_of(spec: Data) -> tuple[int, str | None]:
    """So many, and a note where they are assumed: of a file of lines that is there the lines are counted."""
    file = None if spec.train is None else Path(spec.train).expanduser()
    if file is not None and file.is_file() and ".jsonl" in file.suffixes:
        with open_unpacked(file) as lines:
            found = sum(1 for line in lines if line.strip())
        kept = len(range(found)[slice(*data.parse_rows(spec.train_rows))])
        held_out = 0 if spec.evaluation else min(spec.held_out, kept // SMALLEST_SHARE)
        return kept - held_out, None
    known = EXAMPLES.get(spec.task) if spec.train is None and not spec.mixture else None
    rows = range(spec.num_train if known is None else known)
    kept = len(rows[slice(*data.parse_rows(spec.train_rows))])
    generated = spec.task in data.TASKS and data.TASKS[spec.task].generate is not None
    if known is not None or (generated and spec.train is None and not spec.mixture):
        return kept, None
    what = spec.train or ", ".join(spec.mixture) or f"the training data of the task {spec.task}"
    assumed = f"{kept:,} are assumed; set --config.data.num_train to plan with others"
    return kept, f"how many rows {what} has is not known here: {assumed}"


def answering(answers: Answers, examples: int, batch_size: int) -> str | None:
    """What the target's own answers take beside the stages; None where it gives none beforehand."""
    if answers.source != "target":
        return None
    steps = math.ceil(examples / batch_size) * answers.max_new_tokens
    return (
        f"answers: the target first answers {examples:,} rows itself, {batch_size} at a time, in up to {steps:,} "
        "decoding steps for each turn of a conversation; not among these figures"
    )
