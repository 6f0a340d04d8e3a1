"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import __version__, data, models
from adaspec_jax.config import (
    CUT,
    MODEL,
    QUALIFIER,
    RANDOM,
    Answers,
    Draft,
    Evaluation,
    Experiment,
    Qualifier,
    Target,
    flatten,
    prompts_alone,
    with_cut,
)
from adaspec_jax.config.unused import without_effect
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import answers, masks, stopping, teacher
from adaspec_jax.pipeline.arms import ArmSettings, checked_arms
from adaspec_jax.pipeline.beginnings import (
    Start,
    begin,
    cut_out,
    initial,
    placed,
    restored,
    untrained_head,
    with_vocabulary_of,
)
from adaspec_jax.pipeline.coloured import in_brackets, labelled_tokens
from adaspec_jax.pipeline.compiled import keep_compiled_programs
from adaspec_jax.pipeline.forecast import forecast
from adaspec_jax.pipeline.holder import held
from adaspec_jax.pipeline.intent import say_intent, sizes_of
from adaspec_jax.pipeline.report import write_report
from adaspec_jax.pipeline.stage import fit_stage
from adaspec_jax.pipeline.stage_spec import SAMPLED_ON_THE_WAY
from adaspec_jax.pipeline.teacher_choice import Asked
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import STAGES, Workdir, stages_of
from adaspec_jax.reporting.sinks import check_metrics
from adaspec_jax.training import Frozen

_GENERATED = {name for name, task in data.TASKS.items() if task.generate is not None}


def run(
    config: Experiment,
    directory: str | Path,
    arms: Mapping[str, ArmSettings] | None = None,
    *,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """The report of the finished run; finished stages are restored, an interrupted one goes on where it stopped.

    `arms`: further drafts by name, each distilled under its own settings from the same start by the same target (and
    measured on the same prompts), below DIR/<name>. `command`: how the config was given, for whoever is handed a model.
    """
    if config.accelerator not in ("any", backend := jax.default_backend()):
        raise UserError(f'config.accelerator is "{config.accelerator}", and jax finds no more than {backend} here')
    processes.once(lambda: check_metrics(config.metrics))
    config, workdir, stop = with_cut(config), Workdir(directory), stopping.asked_by(config.draft)
    arms = checked_arms(config, arms or {})
    settings = {f"arm {name}": flatten(arm) for name, arm in arms.items()}
    processes.agree(flatten(config) | settings | {"workdir": str(directory), "version": __version__}, "config")
    with contextlib.ExitStack() as alone:
        processes.each(lambda: processes.first() and alone.enter_context(held(workdir.path, processes.say)))
        processes.once(workdir.clear)
        processes.once(lambda: workdir.claim(config, arms, command))
        asked = config.evaluation, config.data, (*stages_of(config.reference), *arms)
        if (report := processes.once(lambda: workdir.finished_report(*asked))) is not None:
            return report
        keep_compiled_programs(workdir.path / "compilation_cache")

        _say_unused(without_effect(config, generated=_GENERATED, overrides=command))
        start = begin(config, workdir, arms)
        shapes = {name: getattr(config, name).architecture for name in ("target", "draft", QUALIFIER)}
        say_intent(start, shapes, config.evaluation, config.answers)
        how = {"answers": config.answers.source, "teacher": config.teacher}
        start = _with_forecast(start, sizes_of(shapes), config.evaluation, **how)
        if not prompts_alone(config.answers, config.target):
            _preview(start.text, config.data.preview)
        wanted = _asked(config, start)
        teacher.check(wanted, start.text)
        begun = {}  # what stages begin with
        if QUALIFIER in start.stages and not start.finished[QUALIFIER] and config.qualifier.init != CUT:
            begun[QUALIFIER] = _initial_between(start, config.qualifier)
        target, begun["draft"] = _pair(start, config.target, config.draft, config.qualifier, begun.get(QUALIFIER))
        rows = config.reference.batch_size
        if config.answers.source == "target":
            start = _on_the_targets_answers(start, target, config.answers, rows, config.data.max_length)
            _preview(start.text, config.data.preview, "with the target's own answers ")
        if start.head is not None:
            begun["draft"] = untrained_head(start)  # on the text that it is trained on
        if QUALIFIER in start.stages and not start.finished[QUALIFIER]:
            begun[QUALIFIER] = _between(start, target, config.qualifier, config.target, begun.get(QUALIFIER))
        if start.stages["draft"].masks is not None:
            begun["draft"] = masks.with_mask(begun["draft"], config.draft, start.text)
        drafts = _distilled(start, target, begun, wanted, rows)
        stopping.fit_to(start, drafts["draft"], target, stop)
        return write_report(
            start,
            target,
            drafts,
            evaluation=config.evaluation,
            settings=dataclasses.asdict(config),
            on_data_set=config.answers.source == "dataset",
        )


def _say_unused(unused: Sequence[str]) -> None:
    if unused:
        processes.say(f"note: set, and without effect here: {'; '.join(unused)}")


def _with_forecast(start: Start, sizes: Mapping[str, int | None], evaluation: Evaluation, **how: str) -> Start:
    todo = {label: stage for label, stage in start.stages.items() if stage.steps and not start.finished[label]}
    drafts = len(start.stages)  # all but the target, and the draft before it is trained
    told = forecast(todo, start.text, sizes, evaluation, drafts=drafts, **how)
    return dataclasses.replace(start, forecast=told)


def _asked(config: Experiment, start: Start) -> Asked:
    """How what the frozen models say is to reach the stages."""
    return Asked(
        config.teacher,
        config.teacher_top_k,
        config.answers.source in SAMPLED_ON_THE_WAY,
        layers=() if start.head is None else start.head.layers_on(config.target.architecture),
        dtype=None if config.teacher_dtype == "computed" else config.teacher_dtype,
        place=config.teacher_store,
        runs_target=start.head is not None and start.head.runs_target,
    )


def _preview(text: Text, rows: int, what: str = "") -> None:
    """Says the first rows as they are trained on."""
    shown = text.train[:rows]
    for number, tokens in enumerate(labelled_tokens(text.tokenizer, shown), 1):
        counted = f"{shown[number - 1].num_labels} of {len(shown[number - 1].tokens)} tokens"
        processes.say(f"data: row {number} {what}as it is trained on, labels ({counted}) between ⟦ and ⟧:")
        processes.say(in_brackets(tokens))


def _pair(
    start: Start,
    target_origin: Target,
    draft_origin: Draft,
    between_origin: Qualifier,
    between: models.CausalLM | None,
) -> tuple[models.CausalLM, models.CausalLM | None]:
    """(the target as it is distilled from, the draft before any stage; None where that is a head)."""
    given = {"text": start.text, "demands": start.demands, "seed": start.stages["draft"].seed}
    drawn, part = draft_origin.init == RANDOM, draft_origin.init == CUT
    base = None if part or start.head is not None else initial(draft_origin, "draft", **given)
    stage = start.stages["target"]
    if start.finished["target"]:
        target = restored(start, stage)
    elif not stage.steps and target_origin.init == RANDOM:
        raise UserError("target.epochs is 0 and target.init is random: an untrained target teaches nothing")
    else:
        model = initial(target_origin, "target", **given)
        if base is not None:
            with_vocabulary_of(model, base, drawn=drawn)  # said before anything is fitted
        if between is not None:
            with_vocabulary_of(model, between, drawn=between_origin.init == RANDOM, name=QUALIFIER)
        target = _fitted(start, "target", model, Frozen()) if stage.steps else _taken(start, model)
    if start.head is not None:
        return target, None
    if base is None:
        return target, cut_out(start, draft_origin.layers, target_origin)
    return target, with_vocabulary_of(target, base, drawn=drawn)


def _initial_between(start: Start, origin: Qualifier) -> models.CausalLM:
    """A qualifier that is not cut from the target."""
    seed = start.stages[QUALIFIER].seed
    return initial(origin, QUALIFIER, text=start.text, demands=start.demands, seed=seed)


def _between(
    start: Start, target: models.CausalLM, origin: Qualifier, target_origin: Target, model: models.CausalLM | None
) -> models.CausalLM:
    """The qualifier before its stage; `model` where it is not cut from the target."""
    if model is None:
        return cut_out(start, origin.layers, target_origin, QUALIFIER)
    return with_vocabulary_of(target, model, drawn=origin.init == RANDOM, name=QUALIFIER)


def _taken(start: Start, model: models.CausalLM) -> models.CausalLM:
    """A target that is used as it is, kept as its stage's directory."""
    stage, workdir = start.stages["target"], start.workdir
    whole = processes.fetch(model)
    processes.once(lambda: models.save(whole, workdir.stage("target"), tokenizer=start.text.tokenizer))
    processes.once(lambda: workdir.finish("target", {"steps": 0, "epochs": 0} | start.text.examples))
    return placed(model.astype(stage.dtype), stage, start.mesh)


def _on_the_targets_answers(start: Start, target, knobs: Answers, batch_size: int, max_length: int) -> Start:
    """The same with the target's own answers in place of the data set's, and stages of as many steps as they make."""
    stage = start.stages["draft"]
    where = {"workdir": start.workdir, "mesh": start.mesh, "seed": stage.seed}
    sizes = {"batch_size": batch_size, "max_length": max_length, "buckets": stage.buckets}
    advice = "lower config.reference.batch_size or config.answers.max_new_tokens"
    with short_of_memory("sampling the target's answers", advice), sharding.over(start.mesh):
        text = answers.targets_own(knobs, start.text, target, **where, **sizes)
    count, what = len(text.rows), text.rows_in_words  # answers may fill fewer rows, or leave some out
    distilled = {label: stage.for_rows(count, what=what) for label, stage in start.stages.items() if label != "target"}
    return dataclasses.replace(start, text=text, stages={**start.stages, **distilled})


def _distilled(
    start: Start, target: models.CausalLM, begun: Mapping[str, models.CausalLM], asked: Asked, batch_size: int
) -> dict[str, models.CausalLM]:
    """All drafts by label: "base", the untrained one; the reference; the arms; and the draft.

    `begun`: what "draft" begins with, and so do all others but those that are named too. `batch_size`: in which the
    frozen models run over the rows, where what they say is stored.
    """
    draft, base = start.stages["draft"], begun["draft"]
    rows = teacher.Rows(start.text, start.mesh, batch_size, draft.buckets)
    store = _store(start, rows, target, asked)
    seen = teacher.taught_by(target, store)
    drafts = {"base": placed(base.astype(draft.dtype), draft, start.mesh)}
    reference = None
    if "reference" in start.stages:
        reference = drafts["reference"] = _fitted(start, "reference", base, Frozen(target=seen), store, target)
    if store and reference and draft.kind == MODEL:  # a head's divergence is soon computed again, a mask's not known
        shown = {"target": target, "reference": reference, "base": drafts["base"]}
        law = {"divergence": draft.divergence, "fraction": draft.fit.fraction, "chunking": draft.chunking}
        with sharding.over(start.mesh):
            teacher.add_reference(asked, store, rows, **shown, **law, workdir=start.workdir)
    arms = [label for label in start.stages if label not in STAGES]
    for label in (*arms, "draft"):
        drafts[label] = _arm(start, label, begun.get(label, base), seen, reference, store, target)
    return drafts


def _store(start: Start, rows: teacher.Rows, target: models.CausalLM, asked: Asked) -> data.TokenStore | None:
    """What the target says, stored for the stages that are still to be trained; None where it runs at every step."""
    left = [stage for label, stage in start.stages.items() if not start.finished[label]]
    if not left:
        return None
    passes = sum(stage.epochs for stage in left if stage.name != "target")
    with sharding.over(start.mesh):
        how = {"workdir": start.workdir, "chunking": start.stages["draft"].chunking, "passes": passes}
        return teacher.open_store(asked, rows, target, **how)


def _arm(start: Start, label: str, base, seen, reference, store: data.TokenStore | None, target) -> models.CausalLM:
    """A draft under its own settings."""
    fit = start.stages[label].fit
    selects_by_reference = isinstance(fit, Draft) and fit.reference == "trained"
    # The store has the reference's divergence in the draft's own measure.
    stored = store is not None and selects_by_reference and fit.divergence == start.stages["draft"].fit.divergence
    stored &= start.stages["draft"].kind == MODEL
    frozen = Frozen(target=seen, reference=reference if selects_by_reference and not stored else None)
    beside = store
    if store is not None and start.head is not None:
        beside = store.for_models() if label == QUALIFIER else store
    elif store is not None and not stored:
        beside = store.without(teacher.REFERENCE)
    return _fitted(start, label, base, frozen, beside, target)


def _fitted(
    start: Start,
    label: str,
    model: models.CausalLM,
    frozen: Frozen,
    store: data.TokenStore | None = None,
    target: models.CausalLM | None = None,
) -> models.CausalLM:
    """The stage's finished model in the compute type: restored, resumed or fitted now."""
    stage = start.stages[label]
    if start.finished[label]:
        processes.say(f"{label}: finished earlier")
        return restored(start, stage, target)
    shared = {"text": start.text, "mesh": start.mesh, "workdir": start.workdir, "store": store}
    shared["forecast"] = start.forecast
    return fit_stage(stage, model, frozen, **shared).astype(stage.dtype)
