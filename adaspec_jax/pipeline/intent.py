"""What a run is about to do, said before it does it: models, data, steps, and the bytes that can be told beforehand."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import jax

from adaspec_jax import models
from adaspec_jax.config import MODELS, QUALIFIER, Answers, Architecture, Evaluation
from adaspec_jax.data.chat import Conversation
from adaspec_jax.devices import processes
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.pipeline.beginnings import Start
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import STAGES

_KEPT = 2  # checkpoints of a stage that is under way
_FLOAT32 = 4  # bytes of a parameter in a checkpoint, in a finished stage's files, and of a moment


def say_intent(
    start: Start, architectures: Mapping[str, Architecture | None], evaluation: Evaluation, answers: Answers
) -> None:
    """`architectures`: of "target", "draft" and "qualifier", None where that is not known yet."""
    for line in in_words(start, architectures, evaluation, answers):
        processes.say(line)


def in_words(
    start: Start, architectures: Mapping[str, Architecture | None], evaluation: Evaluation, answers: Answers
) -> list[str]:
    prompts = min(evaluation.num_prompts, len(start.text.held_out))
    lines = [f"to do in {start.workdir.path}:"]
    lines.append(f"  data: {_counted(start.text)}; {prompts} prompts to measure on")
    described = {name: _described(architecture) for name, architecture in architectures.items()}
    for label, stage in start.stages.items():
        whose = stage.name if stage.name in described else "draft"
        if stage.kind not in MODELS and whose == "draft":
            model, size = f"a head of the kind {stage.kind}", None
        else:
            model, size = described.get(whose, ("a model", None))
        lines.append(f"  {label}: {model}; {_work(stage, start.finished[label], size)}")
        if label == "target" and answers.source == "target":
            lines.append(f"  answers: {_asked(start, answers)}")
    lines += _short_of_steps(start)
    guesses = f"{evaluation.draft_length} guesses" if evaluation.draft_length else "the best number of guesses"
    lines.append(f"  then every draft is measured, with {guesses} a round and up to {evaluation.max_new_tokens} tokens")
    return lines


def _counted(text: Text) -> str:
    rows = text.rows
    tokens, labels = sum(len(row.tokens) for row in rows), sum(row.num_labels for row in rows)
    if not labels:  # the target answers, and what the file says itself is not read
        return f"{len(rows):,} prompts of {tokens:,} tokens"
    return f"{len(rows):,} {text.rows_in_words} of {tokens:,} tokens, {labels:,} of them labels"


def _asked(start: Start, answers: Answers) -> str:
    """How the target's own answers come about."""
    talks = [each for each in start.text.examples_of_train if isinstance(each, Conversation)]
    turns, of = len(start.text.train), ""
    if talks:
        turns, of = sum(len(talk.awaited()) for talk in talks), f" of {len(talks):,} conversations"
    drawn = f"drawn at temperature {answers.temperature:g}" if answers.temperature else "the likeliest tokens"
    what = f"the target answers {turns:,} {'turns' if talks else 'prompts'}{of} itself"
    done = " but for those that it has answered" if any((start.workdir.path / "answers").glob("*.npz")) else ""
    return f"{what}{done}: up to {answers.max_new_tokens} tokens each, {drawn}"


def sizes_of(architectures: Mapping[str, Architecture | None]) -> dict[str, int | None]:
    """The parameters of each; None where it is not known yet."""
    return {name: _described(architecture)[1] for name, architecture in architectures.items()}


def _described(architecture: Architecture | None) -> tuple[str, int | None]:
    """A model in words, and its number of parameters."""
    if architecture is None:
        return "a model", None
    hf = architecture.hf_config()
    size = _parameters(json.dumps(hf))
    return f"{hf['model_type']} of {size:,} parameters", size


@functools.cache
def _parameters(hf_config: str) -> int:
    shapes = parameter_shapes(models.config_from_hf(json.loads(hf_config)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


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


def _short_of_steps(start: Start) -> list[str]:
    """Which stages end before their learning rate has been up for as long as it rises."""
    left = {label: stage for label, stage in start.stages.items() if stage.steps and start.finished[label] is None}
    short = {label: stage for label, stage in left.items() if stage.updates < 2 * stage.fit.warmup_steps}
    keys = {label: stage.name if stage.name in (*STAGES, QUALIFIER) else "draft" for label, stage in short.items()}
    return [
        f"  note: {label}: the learning rate rises for {stage.fit.warmup_steps} of {stage.updates} updates; set "
        f"--config.{keys[label]}.warmup_steps lower, or give more rows or epochs"
        for label, stage in short.items()
    ]


def _in_bytes(size: float) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.3g} {unit}"
    return f"{size / 1024:.3g} KiB"
