"""What a config's values must have: each what stands beside its field, and several of them something in common."""

import dataclasses
from typing import Any

from adaspec_jax.config.bounds import complaint_of
from adaspec_jax.config.early_exits import read_early_exit
from adaspec_jax.config.experiment import (
    CUT,
    MASKED,
    MODEL,
    MODELS,
    PASS,
    RANDOM,
    SPECDEC_PP,
    Data,
    Draft,
    Experiment,
    Qualifier,
    Reference,
    Target,
    prompts_alone,
)
from adaspec_jax.config.schedule import draft_schedule
from adaspec_jax.errors import UserError


def validate(config: Experiment) -> None:
    """Raises `UserError` naming the first key whose value cannot work."""
    _check_fields(config)
    _check_reference(config.reference, config.draft)
    if config.target.early_exit:
        read_early_exit(config.target.early_exit)
    _check_data(config.data, prompts_will_do=prompts_alone(config.answers, config.target))
    small = {"draft": config.draft} | ({"qualifier": config.qualifier} if config.qualifier.epochs else {})
    _check_origins(config.target, **small)
    _check_architectures(target=config.target, **small)
    if config.answers.source == "target" and config.data.chat.reasoning != "keep":
        raise UserError(
            f'data.chat.reasoning is "{config.data.chat.reasoning}", and answers.source "target": its reasoning is '
            'part of what a draft of it is to guess; set data.chat.reasoning="keep", or answers.source="dataset"'
        )
    if config.draft.kind not in MODELS:
        _check_head(config)
    else:
        _check_model(config)
    if config.teacher == "top_k":
        _check_known_law(reference=config.reference, **small)
    _check_store(config)
    _check_shards(config.draft)
    stage = config.profile.partition(":")[0]
    if stage and not getattr(config, stage).epochs:
        raise UserError(f'profile is "{config.profile}", and {stage}.epochs is 0: no step of it is made')
    if config.data.packing:
        _check_packing(config)


def _check_fields(group: Any, prefix: str = "") -> None:
    for item in dataclasses.fields(group):
        key, value = f"{prefix}{item.name}", getattr(group, item.name)
        if isinstance(value, type):
            raise UserError(f"{key} is the class {value.__name__} itself; write {value.__name__}()")
        if dataclasses.is_dataclass(value):
            _check_fields(value, f"{key}.")
        elif complaint := complaint_of(item, value):
            raise UserError(f"{key} {complaint}")


def _check_reference(reference: Reference, draft: Draft) -> None:
    if not reference.epochs and (draft.reference == "trained" or reference.equal_data):
        raise UserError(
            'reference.epochs is 0, which is possible with draft.reference="moving_average" and without '
            "reference.equal_data alone"
        )


def _check_data(data: Data, *, prompts_will_do: bool) -> None:
    if data.answer_column is not None and data.prompt_column is None:
        raise UserError("data.answer_column needs a data.prompt_column beside it")
    if data.prompt_column is not None and data.answer_column is None and not prompts_will_do:
        raise UserError(
            "data.prompt_column needs a data.answer_column beside it; prompts alone will do where answers.source is "
            '"target" and target.epochs 0'
        )
    if data.mixture and (data.train is not None or data.evaluation is not None):
        raise UserError("data.mixture takes the place of data.train and data.evaluation: give one or the other")
    if data.text_column is not None and data.prompt_column is not None:
        raise UserError("give data.text_column, or data.prompt_column with data.answer_column, not both")
    if data.max_prompt_length >= data.max_length:
        raise UserError(
            f"data.max_prompt_length {data.max_prompt_length} leaves no room for an answer within "
            f"data.max_length {data.max_length}"
        )
    if data.buckets[-1] < data.max_length:
        raise UserError(f"the last of data.buckets is below data.max_length {data.max_length}; raise it")


def _check_origins(target: Target, **small: Draft | Qualifier) -> None:
    """Where weights come from; a model that is cut has an architecture once `with_cut` gave it one."""
    if target.init == CUT:
        raise UserError('target.init is "cut", which is for drafts: give "random", a directory or a hub name')
    for name, stage in {"target": target, **small}.items():
        if stage.architecture is None:
            raise UserError(f"{name}.architecture is None: {_unread(name, stage.init)}")
    assert target.architecture is not None, "told above"
    count = target.architecture.num_layers
    for name, part in small.items():
        if part.init != CUT and part.layers:
            raise UserError(f'{name}.layers {part.layers} is for {name}.init "cut", and that is "{part.init}"')
        if part.layers and part.layers[-1] >= count:
            raise UserError(f"{name}.layers has {part.layers[-1]}, and the target has the layers 0 to {count - 1}")


def _unread(name: str, init: str) -> str:
    if init == RANDOM:
        return (
            f"say which model: --config.{name}.init=DIR_OR_NAME, where weights and config.json are; for one from "
            "scratch the config file must give the architecture, as in GPTNeoX(hidden_size=128)"
        )
    return "nobody read it: give one, such as architecture_of(a config.json) of adaspec_jax.config"


def _check_architectures(**stages: Target | Draft | Qualifier) -> None:
    for name, stage in stages.items():
        if stage.architecture is not None and (mistake := stage.architecture.mistake()):
            raise UserError(f"{name}.architecture: {mistake}")


def _check_head(config: Experiment) -> None:
    kind = config.draft.kind
    if config.draft.init != RANDOM:
        raise UserError(
            f'draft.init is "{config.draft.init}", and draft.kind "{kind}": a head begins at random; leave it out'
        )
    if config.teacher == "top_k":
        raise UserError(f'teacher "top_k" knows no hidden states, and draft.kind "{kind}" reads them; use "hidden"')
    if kind == PASS and (config.teacher == "hidden" or config.teacher_store):
        key = "teacher" if config.teacher == "hidden" else "teacher_store"
        raise UserError(
            f'{key} is "{getattr(config, key)}", and draft.kind "{kind}" runs the whole target at every step, whatever '
            f"is stored: leave {key} out"
        )
    if config.answers.source in ("draft", "mixed"):
        raise UserError(
            f'answers.source "{config.answers.source}" samples from a draft that is a model, and draft.kind is '
            f'"{kind}"; use "dataset" or "target"'
        )


def _check_model(config: Experiment) -> None:
    kind = config.draft.kind
    for key in ("head", "masks") if kind == MODEL else ("masks",):
        if (value := getattr(config.draft, key)) != getattr(Draft(), key):
            raise UserError(f'draft.{key} "{value}" is for a head, and draft.kind is "{kind}"')
    if kind in (*MASKED, SPECDEC_PP) and config.teacher == "top_k":
        raise UserError(
            f'teacher "top_k" does not know how likely the text\'s own tokens are, and draft.kind "{kind}" asks; use '
            '"hidden"'
        )


def _check_known_law(**stages: Reference | Draft | Qualifier) -> None:
    for name, stage in stages.items():
        if stage.divergence != "forward_kl":
            raise UserError(
                f'{name}.divergence is "{stage.divergence}", and teacher "top_k" knows the forward_kl alone; '
                'use teacher "hidden"'
            )


def _check_store(config: Experiment) -> None:
    """A store is named, or its type, where there may be one."""
    key = "teacher_store" if config.teacher_store else "teacher_dtype" if config.teacher_dtype != "computed" else None
    if key is None:
        return
    said = f'{key} is "{getattr(config, key)}"'
    if config.teacher == "recompute":
        raise UserError(f'{said}, and teacher "recompute" stores nothing: set teacher="hidden", or leave {key} out')
    if config.answers.source in ("draft", "mixed"):
        source = config.answers.source
        raise UserError(f'{said}, and nothing can be stored of answers.source "{source}": leave {key} out')
    if config.teacher == "top_k" and config.teacher_dtype != "computed":
        raise UserError(
            f'teacher_dtype is "{config.teacher_dtype}", which is of stored hidden states, and teacher "top_k" stores '
            "none: leave teacher_dtype out"
        )


def _check_packing(config: Experiment) -> None:
    if config.answers.source in ("draft", "mixed"):
        raise UserError(
            f'data.packing is True, and answers.source "{config.answers.source}" samples one answer a row, after the '
            'prompt that it begins with: set data.packing=False, or answers.source to "dataset" or "target"'
        )
    if config.attention == "cudnn":
        raise UserError(
            'data.packing is True, and attention "cudnn" does not keep the examples of a row apart: set attention to '
            '"xla", or data.packing=False'
        )


def _check_shards(draft: Draft) -> None:
    rows = draft_schedule(draft)[1]
    if draft.scope == "shard" and rows % draft.shards:
        raise UserError(f"the draft's batch of {rows} does not divide into draft.shards {draft.shards}")
