"""What a run is about to do, said before it does it: models, data, steps, and the bytes that can be told beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from adaspec_jax import models
from adaspec_jax.config import MODEL, Architecture, Evaluation
from adaspec_jax.devices import processes
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.pipeline.beginnings import Start
from adaspec_jax.pipeline.stage_spec import StageSpec

_KEPT = 2  # checkpoints of a stage that is under way
_FLOAT32 = 4  # bytes of a parameter in a checkpoint, in a finished stage's files, and of a moment


def say_intent(start: Start, architectures: Mapping[str, Architecture | None], evaluation: Evaluation) -> None:
    """`architectures`: of "target", "draft" and "qualifier", None where that is not known yet."""
    for line in in_words(start, architectures, evaluation):
        processes.say(line)


def in_words(start: Start, architectures: Mapping[str, Architecture | None], evaluation: Evaluation) -> list[str]:
    rows, kind = start.text.rows, start.text.rows_in_words
    tokens, labels = sum(len(row.tokens) for row in rows), sum(row.num_labels for row in rows)
    prompts = min(evaluation.num_prompts, len(start.text.held_out))
    lines = [f"to do in {start.workdir.path}:"]
    counted = f"{len(rows):,} {kind} of {tokens:,} tokens, {labels:,} of them labels"
    lines.append(f"  data: {counted}; {prompts} prompts to measure on")
    described = {name: _described(architecture) for name, architecture in architectures.items()}
    for label, stage in start.stages.items():
        whose = stage.name if stage.name in described else "draft"
        if stage.kind != MODEL and whose == "draft":
            model, size = f"a head of the kind {stage.kind}", None
        else:
            model, size = described.get(whose, ("a model", None))
        lines.append(f"  {label}: {model}; {_work(stage, start.finished[label], size)}")
    guesses = f"{evaluation.draft_length} guesses" if evaluation.draft_length else "the best number of guesses"
    lines.append(f"  then every draft is measured, with {guesses} a round and up to {evaluation.max_new_tokens} tokens")
    return lines


def _described(architecture: Architecture | None) -> tuple[str, int | None]:
    """A model in words, and its number of parameters."""
    if architecture is None:
        return "a model", None
    hf = architecture.hf_config()
    shapes = parameter_shapes(models.config_from_hf(hf))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    return f"{hf['model_type']} of {size:,} parameters", size


def _work(stage: StageSpec, finished: Mapping[str, Any] | None, size: int | None) -> str:
    """What is done of a stage, and the memory and disk that its parameters take."""
    if finished is not None:
        return "finished earlier"
    if not stage.steps:
        return "used as it is"
    epochs = f"{stage.epochs:g} {'epoch' if stage.epochs == 1 else 'epochs'}"
    said = f"{stage.steps:,} steps of {stage.batch_size} rows ({epochs})"
    if size is None:
        return said
    state, disk = size * 4 * _FLOAT32, size * (_FLOAT32 + 3 * _FLOAT32 * _KEPT)
    return f"{said}; {_in_bytes(state)} of parameters, moments and gradients, up to {_in_bytes(disk)} on the disk"


def _in_bytes(size: float) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.3g} {unit}"
    return f"{size / 1024:.3g} KiB"
