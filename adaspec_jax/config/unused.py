"""Settings that change nothing beside others' values: what was set and is not looked at should be said."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from adaspec_jax.config.experiment import MODELS, Data, Experiment
from adaspec_jax.config.leaves import flatten

_TRAINING = "lr schedule warmup_steps weight_decay clip_norm beta1 beta2 eps accumulate micro_batches".split()
_TRAINING += ["rematerialise", "moments", "master"]


def without_effect(config: Experiment, *, generated: Container[str], overrides: Sequence[str] = ()) -> list[str]:
    """`KEY=VALUE (why)` of every key that was set and is not looked at.

    Set is what differs from its default, or stands among the `overrides`, as a command line has them. `generated`:
    names of tasks whose rows are made, as many as asked for.
    """
    ours, defaults = flatten(config), flatten(Experiment())
    named = {override.partition("=")[0].removeprefix("--config.") for override in overrides}
    return [
        f"{key}={ours[key]} ({why})"
        for key, why in _unused(config, generated)
        if key in ours and (key in named or ours[key] != defaults.get(key))
    ]


def _unused(config: Experiment, generated: Container[str]) -> Iterator[tuple[str, str]]:
    """Every key that is not looked at, whatever its value."""
    yield from _unused_of_data(config.data, generated)
    if config.tokenizer.init != "train":
        yield "tokenizer.vocab_size", "of a tokenizer that is trained here"
    if config.answers.source == "dataset":
        for name in ("temperature", "max_new_tokens", "share"):
            yield f"answers.{name}", 'answers.source is "dataset"'
    elif config.answers.source != "mixed":
        yield "answers.share", 'of answers.source "mixed"'
    if config.teacher in ("recompute", "hidden"):
        yield "teacher_top_k", f'teacher is "{config.teacher}"'
    if config.nonfinite == "stop":
        yield "most_skipped", 'of nonfinite "skip"'
    draft = config.draft
    if draft.reference != "moving_average":
        yield "draft.average_decay", 'of draft.reference "moving_average"'
    if draft.scope != "shard":
        yield "draft.shards", 'of draft.scope "shard"'
    if draft.kind in MODELS:
        yield "draft.masks", "of a draft that is a head"
    for name in ("target", "qualifier"):
        part = getattr(config, name)
        if not part.epochs:
            for key in _TRAINING:
                yield f"{name}.{key}", f"{name}.epochs is 0"
    if not config.target.epochs:
        yield "target.early_exit", "target.epochs is 0"
    if not config.target.lora_rank:
        yield "target.lora_lr", "target.lora_rank is 0"


def _unused_of_data(spec: Data, generated: Container[str]) -> Iterator[tuple[str, str]]:
    if spec.mixture:
        yield from ((key, "data.mixture takes its place") for key in ("data.train", "data.evaluation"))
        return  # of its parts, some may be generated
    own = spec.prompt_column is not None or spec.text_column is not None
    a_task = not own and spec.task in generated
    split = bool(spec.held_out) and spec.evaluation is None
    if spec.train is not None or not a_task:
        yield "data.num_train", 'of generated tasks; of a file data.train_rows="0:N" takes the first N'
    if split:
        for name in ("evaluation_split", "evaluation_rows", "num_evaluation"):
            yield f"data.{name}", "data.held_out rows of data.train are measured on"
    elif spec.evaluation is not None or not a_task:
        yield "data.num_evaluation", 'of generated tasks; of a file data.evaluation_rows="0:N" takes the first N'
    if spec.held_out and spec.evaluation is not None:
        yield "data.held_out", "data.evaluation is given"
    made = a_task and (spec.train is None or (spec.evaluation is None and not split))
    if not (made or split):
        yield "data.seed", "of generated tasks, and of the split by data.held_out"
