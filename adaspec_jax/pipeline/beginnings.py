"""What a run starts from: its text, mesh and stages, and the models that the stages begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import data, models
from adaspec_jax.config import (
    CUT,
    MODELS,
    QUALIFIER,
    RANDOM,
    Answers,
    Draft,
    Evaluation,
    Experiment,
    Qualifier,
    Target,
    prompts_alone,
)
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.models.heads import Head
from adaspec_jax.pipeline import heads, masks, seeds
from adaspec_jax.pipeline.arms import ArmSettings
from adaspec_jax.pipeline.forecast import Forecast
from adaspec_jax.pipeline.heads import HeadAsked
from adaspec_jax.pipeline.layout import check_tensor_axis, mesh_for, schedule
from adaspec_jax.pipeline.stage_spec import StageSpec, num_steps, stage_spec
from adaspec_jax.pipeline.text import Text, read_text
from adaspec_jax.pipeline.workdir import Workdir, stages_of
from adaspec_jax.places import HUB_NAME


@dataclass(frozen=True)
class Start:
    """What all stages of a run share, and the stages."""

    workdir: Workdir
    mesh: sharding.Mesh
    text: Text
    stages: Mapping[str, StageSpec]  # by label: the run's own in their order, then the arms
    finished: Mapping[str, dict[str, Any] | None]  # what earlier sessions recorded of each, as all processes know it
    head: HeadAsked | None  # what reference and draft are, where they are no models
    demands: Demands
    forecast: Forecast | None = None  # of how long the stages take


@dataclass(frozen=True)
class Demands:
    """What every model of a run must take, and how it is computed."""

    trained: int  # tokens of the longest training row
    decoded: int  # of the longest prompt with its continuation
    vocabulary: int  # rows that a token owns
    attention: str
    dtype: str


def begin(config: Experiment, workdir: Workdir, arms: Mapping[str, ArmSettings]) -> Start:
    """Reads the text and resolves the stages; whatever cannot be done is said here, before anything is."""
    own = {name: getattr(config, name) for name in stages_of(config.reference)}
    head = heads.asked_by(config.draft, config.target.architecture, {**own, **arms})
    fits = {"target": config.target, "reference": config.reference, "draft": config.draft}
    fits |= {QUALIFIER: arms[QUALIFIER]} if QUALIFIER in arms else {}
    rows = {f"the arm {name}": schedule(arm)[1] for name, arm in arms.items() if name != QUALIFIER}
    mesh = mesh_for(config.mesh, fits, config.evaluation.batch_size, more=rows)
    if mesh.size > 1:
        processes.say(f"mesh: {sharding.in_words(mesh)}")
    origins = {"target": config.target, "draft": config.draft}
    if QUALIFIER in arms:
        check_tensor_axis(config.mesh, QUALIFIER, arms[QUALIFIER])
        origins[QUALIFIER] = arms[QUALIFIER]
    # What is cut from the target is the target's, tokenizer and vocabulary included.
    origins = {name: each for name, each in origins.items() if each.init != CUT and (name != "draft" or head is None)}
    alone = prompts_alone(config.answers, config.target)
    text = read_text(config.data, config.tokenizer, origins, workdir=workdir, seed=config.seed, for_prompts=alone)
    processes.agree(text.record | {"tokens": text.tokens_sha256}, "data")
    _check_same_examples(workdir, text, (*own, *arms))
    stages, what = {}, text.rows_in_words
    for label, fit in {**own, **arms}.items():
        steps = 0 if label == "target" and not fit.epochs else num_steps(fit, len(text.rows), what=what)
        where = {"mesh": mesh, "backend": jax.default_backend(), "ends": text.ends}
        stages[label] = stage_spec(config, fit, label=label, steps=steps, **where)
    finished = processes.once(lambda: {label: workdir.finished(label) for label in stages})
    longest = _longest_row(text, config.answers, config.data.max_length)
    how = {"attention": config.attention, "dtype": config.dtype}
    demands = demands_of(text, config.evaluation, longest=longest, **how)
    if head is not None:
        head.check_on(config.target.architecture, demands.vocabulary, text)
    if stages["draft"].masks is not None:
        masks.mask_for(config.draft, text, vocab_size=config.target.architecture.vocab_size, owned=demands.vocabulary)
    return Start(workdir, mesh, text, stages, finished, head, demands)


def _check_same_examples(workdir: Workdir, text: Text, labels: tuple[str, ...]) -> None:
    """`UserError` where a stage was trained, so far or to its end, on other text than the data key names now."""
    trained_on = processes.once(lambda: {label: workdir.trained_on(label) for label in labels})
    for label, record in trained_on.items():
        for key, what in (("examples_sha256", "examples have"), ("tokens_sha256", "examples' tokens have")):
            if record.get(key, text.examples[key]) != text.examples[key]:
                raise UserError(
                    f"the training {what} changed since {workdir.stage(label)} was made; "
                    "use another --workdir, or restore the data"
                )


def _longest_row(text: Text, answers: Answers, max_length: int) -> int:
    """Tokens of the longest row that is trained on, or that it may have once the target has answered."""
    longest = max(len(row.tokens) for row in text.train)
    if answers.source != "target":
        return longest
    if text.chat:
        return max_length
    answered = max(row.prompt_length for row in text.train) + answers.max_new_tokens
    return max(longest, min(answered, max_length))


def demands_of(text: Text, evaluation: Evaluation, *, longest: int, attention: str, dtype: str) -> Demands:
    """By the prompts that are measured, and `longest`, the tokens of the longest row that is trained on."""
    prompts = text.held_out[: evaluation.num_prompts]
    return Demands(
        trained=longest,
        decoded=max(row.prompt_length for row in prompts) + evaluation.max_new_tokens,
        vocabulary=data.rows_needed(text.tokenizer),
        attention=attention,
        dtype=dtype,
    )


def initial(
    origin: Target | Draft | Qualifier, name: str, *, text: Text, demands: Demands, seed: int
) -> models.CausalLM:
    """The stock model a stage starts from, in float32 on the host, with vocabulary rows no token owns ruled out."""
    if origin.init == RANDOM:
        begin, ends = text.tokenizer.bos_token_id, text.ends.recorded if text.ends.ids else text.eos_id
        special = {"bos_token_id": text.eos_id if begin is None else begin, "eos_token_id": ends}
        with sharding.on_host():
            key = seeds.initial_weights(seed, name)
            model = models.build(origin.architecture.hf_config() | special, key)
    else:
        text.check_own_tokenizer(origin.init, name)
        with sharding.on_host():
            model = models.load(origin.init)
        data.check_fits(text.tokenizer, model.config.vocab_size, f"the {name} {origin.init}")
    model = prepared(model, f"the {name} {origin.init}", demands)
    processes.say(f"{name}: {model.num_params:,} parameters from {origin.init}")
    return model


def untrained_head(start: Start) -> Head:
    """The head that reference and draft begin with, on the finished target; the same bits in every session."""
    with sharding.on_host():
        target = models.load(start.workdir.stage("target")).with_vocabulary(start.demands.vocabulary)
    head = heads.untrained(start.head, target, start.text, start.stages["draft"].seed)
    return head.with_attention(start.demands.attention, start.demands.dtype)


def cut_out(start: Start, layers: Sequence[int], origin: Target, name: str = "draft") -> models.CausalLM:
    """These layers of the finished target, in float32 on the host; the same bits in every session."""
    with sharding.on_host():
        # From the directory: what is on the mesh is rounded to the compute type.
        model = models.cut(models.load(start.workdir.stage("target")), layers, origin=_named(origin))
    processes.say(f"{name}: {model.num_params:,} parameters {models.cut_from(model)}")
    return prepared(model, f"the {name} cut from the target", start.demands)


def _named(target: Target) -> str:
    """A target for people elsewhere, to whom a path of this machine says nothing."""
    if target.init == RANDOM:
        return "a target trained from scratch"
    name = target.init if HUB_NAME.fullmatch(target.init) else Path(target.init).resolve().name
    return f"{name}, fine-tuned" if target.epochs else name


def restored(start: Start, stage: StageSpec, target: models.CausalLM | None = None) -> models.CausalLM | Head:
    """The model of a stage that an earlier session finished, in the compute type, on the mesh; a head on its target."""
    with sharding.on_host():
        if stage.kind not in MODELS:
            head = models.load_head(start.workdir.stage(stage.label), target, dtype=start.demands.dtype)
            head = head.with_attention(start.demands.attention, start.demands.dtype)
            return placed(head, stage, start.mesh)
        model = models.load(start.workdir.stage(stage.label), dtype=start.demands.dtype)
        model = prepared(model, f"the {stage.label}", start.demands)
    return placed(model, stage, start.mesh)


def placed(model: models.CausalLM | Head, stage: StageSpec, mesh: sharding.Mesh) -> models.CausalLM | Head:
    """On the mesh, with its layers as the stage reads them."""
    return sharding.shard(model.stacked() if stage.memory.scanned else model, mesh, stage.table)


def prepared(model: models.CausalLM, name: str, demands: Demands) -> models.CausalLM:
    """Padding rows ruled out, and the kernel chosen; `UserError` where text is longer than the model's context."""
    model.check_context(demands.trained, name, "lower data.max_length")
    model.check_context(demands.decoded, name, "lower evaluation.max_new_tokens or data.max_prompt_length")
    return model.with_vocabulary(demands.vocabulary).with_attention(demands.attention, demands.dtype)


def with_vocabulary_of(
    target: models.CausalLM, draft: models.CausalLM, *, drawn: bool, name: str = "draft"
) -> models.CausalLM:
    """The draft with as many vocabulary rows as its target; only rows that no token owns may differ.

    `name`: what it is called.

    `drawn`: it begins at random, so that its config names the number, and `UserError` says what to change.
    """
    ours, theirs = draft.config.vocab_size, target.config.vocab_size
    if ours == theirs:
        return draft
    if drawn:
        raise UserError(
            f"the target has vocab_size {theirs} and the {name} {ours}: a {name} must share its target's vocabulary; "
            f"set {name}.architecture.vocab_size or choose another pair"
        )
    with sharding.on_host():
        return draft.with_vocabulary_size(theirs)
