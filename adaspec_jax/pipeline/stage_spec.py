"""A stage as it is to be run: what the config says of it, resolved, so that nothing below needs the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import optax

from adaspec_jax import data
from adaspec_jax.config import MODEL, SPECDEC_PP, Answers, Draft, Experiment, Fit, Qualifier, Reference, Target
from adaspec_jax.config.early_exits import read_early_exit
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.models.heads import find_kind
from adaspec_jax.models.heads.parts.coupled import Coupled
from adaspec_jax.models.heads.parts.look_ahead import LookAhead
from adaspec_jax.pipeline import masks as masking
from adaspec_jax.pipeline.layout import chunking_for, schedule, table_of
from adaspec_jax.pipeline.memory import Memory, scans_layers
from adaspec_jax.pipeline.on_policy import on_policy
from adaspec_jax.training import Chunking, objectives
from adaspec_jax.training.divergences import Divergence, find_divergence
from adaspec_jax.training.loop import Rewrite
from adaspec_jax.training.objectives import Objective
from adaspec_jax.training.selection import find_selection

_KINDS = {"target": Target, "reference": Reference, "draft": Draft, "qualifier": Qualifier}
NEVER = data.Ends((), 0)
SAMPLED_ON_THE_WAY = ("draft", "mixed")  # sources of answers that are sampled at every step


@dataclass(frozen=True)
class StageSpec:
    """One stage, resolved: names have become functions, and what several keys say together is one value."""

    name: str  # whose keys it follows: "target", "reference", "draft" or "qualifier"
    kind: str  # "model", "pard", or the kind of head that is fitted
    masks: objectives.Masks | None  # of a draft that guesses at mask tokens
    label: str  # of its directory and progress; an arm has its own
    fit: Fit  # rates, schedule, decay, clipping, accumulation
    epochs: float
    batch_size: int
    steps: int  # batches; 0 where nothing is fitted
    divergence: Divergence | None  # from the target; None where none is distilled
    objective: Callable[..., Objective]  # by micro_batches
    rewrite: Rewrite | None  # answers sampled on the way
    average_decay: float | None  # of the draft's own average, where that stands for the reference
    memory: Memory  # as written
    gives_up: bool  # whatever it must, to fit its devices
    table: sharding.Table
    chunking: Chunking
    dtype: str
    ends: data.Ends
    seed: int
    buckets: tuple[int, ...]
    length_window: int
    packed: bool  # rows of a batch hold several examples
    checkpoint_every: int
    skipped: int  # batches in a row that are left out because their loss or gradient is not finite
    metrics: str  # where they go beside metrics.jsonl: names, with commas between them
    traced: range | None  # steps of which a trace is written

    def for_rows(self, rows: int, *, what: str = "examples") -> StageSpec:
        """The same stage on so many rows: with their number of batches, and what follows from it."""
        steps = num_steps(self.fit, rows, what=what)
        objective = partial(
            _objective_of(self.fit, self.divergence, steps, self.kind, self.masks), chunking=self.chunking
        )
        return replace(self, steps=steps, objective=objective)

    @property
    def updates(self) -> int:
        """Of the optimiser."""
        return self.steps // self.fit.accumulate


def stage_spec(
    config: Experiment,
    fit: Fit,
    *,
    label: str | None = None,
    steps: int,
    mesh: sharding.Mesh,
    backend: str,
    ends: data.Ends = NEVER,
) -> StageSpec:
    """The stage with these settings, the config's own or an arm's, for so many batches on this mesh.

    `ends` end answers that are sampled on the way; what closes a row pads batches.
    """
    name = stage_of(fit)
    kind = config.draft.kind if name in ("reference", "draft") else MODEL
    kind = MODEL if kind == SPECDEC_PP else kind  # its head comes after these stages
    masks = masking.asked_by(config.draft) if kind != MODEL else None
    epochs, batch_size = schedule(fit)
    chunking = chunking_for(config.loss_chunk, mesh, backend)
    divergence = None if name == "target" else find_divergence(fit.divergence)
    averaged = isinstance(fit, Draft) and fit.reference == "moving_average"
    return StageSpec(
        name=name,
        kind=kind,
        masks=masks,
        label=label or name,
        fit=fit,
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
        divergence=divergence,
        objective=partial(_objective_of(fit, divergence, steps, kind, masks), chunking=chunking),
        rewrite=None if name == "target" else _rewrite(config.answers, ends),
        average_decay=fit.average_decay if averaged else None,
        memory=Memory.written(fit, scanned=scans_layers(config.layers, backend)),
        gives_up=config.memory == "auto",
        table=table_of(config.mesh, name),
        chunking=chunking,
        dtype=config.dtype,
        ends=ends,
        seed=config.seed,
        buckets=config.data.buckets,
        length_window=config.data.length_window,
        packed=config.data.packing,
        checkpoint_every=config.checkpoint_every,
        skipped=config.most_skipped if config.nonfinite == "skip" else 0,
        metrics=config.metrics,
        traced=_traced(config.profile, label or name, steps),
    )


def stage_of(fit: Fit) -> str:
    """ "target", "reference", "draft" or "qualifier": what settings of this kind are of."""
    return next(name for name, kind in _KINDS.items() if isinstance(fit, kind))


def num_steps(fit: Fit, rows: int, *, what: str = "examples") -> int:
    """Batches of a stage; `UserError`, naming the keys, where there is not one update to make."""
    epochs, batch_size = schedule(fit)
    steps = data.num_steps(rows, batch_size, epochs)
    if steps < fit.accumulate:
        name = stage_of(fit)
        raise UserError(
            f"{epochs:g} epochs of {rows} {what} at batch {batch_size} make {steps} batches, and "
            f"{fit.accumulate} make an update: raise config.{name}.epochs, or lower config.{name}.batch_size or "
            ".accumulate"
        )
    return steps


def _objective_of(
    fit: Fit, divergence: Divergence | None, steps: int, kind: str, masks: objectives.Masks | None
) -> Callable[..., Objective]:
    if isinstance(fit, Target) and fit.early_exit:
        return partial(objectives.early_exit, **read_early_exit(fit.early_exit), steps=steps)
    if isinstance(fit, Target):
        return objectives.fine_tune
    at_masks = {"masks": masks, "steps": steps}
    if isinstance(fit, Reference | Qualifier):
        if masks is not None:
            return partial(objectives.distill_masked, divergence, **at_masks)
        return partial(objectives.distill if kind == MODEL else _of_heads(kind, steps), divergence)
    if masks is not None:
        selective: Callable[..., Objective] = partial(objectives.distill_masked, **at_masks)
    else:
        selective = objectives.selective_distill if kind == MODEL else partial(_of_heads(kind, steps), masks=fit.masks)
    return partial(
        selective,
        divergence,
        fraction=_share_kept(fit, steps // fit.accumulate * fit.accumulate),
        normalize=fit.normalize,
        scope=fit.scope,
        shards=fit.shards,
        rule=find_selection(fit.selection),
    )


def _of_heads(kind: str, steps: int) -> Callable[..., Objective]:
    """What heads of the kind minimise, in so many steps."""
    made = find_kind(kind)
    if issubclass(made, Coupled):
        return partial(objectives.distill_glancing, steps=steps)
    return objectives.distill_ahead if issubclass(made, LookAhead) else objectives.distill_head


def _share_kept(draft: Draft, batches: int) -> float | Callable[[jax.Array], jax.Array]:
    if draft.final_fraction is None:
        return draft.fraction
    return optax.linear_schedule(draft.fraction, draft.final_fraction, max(batches - 1, 1))


def _traced(profile: str, label: str, steps: int) -> range | None:
    stage, _, asked = profile.partition(":")
    if stage != label:
        return None
    first, last = map(int, asked.split("-"))
    if first > steps:
        raise UserError(f'config.profile is "{profile}", and the {label} stage has {steps} steps; name some of them')
    return range(first, min(last, steps) + 1)


def _rewrite(answers: Answers, ends: data.Ends) -> Rewrite | None:
    if answers.source not in SAMPLED_ON_THE_WAY:
        return None
    share = answers.share if answers.source == "mixed" else 1.0
    knobs = {"max_new_tokens": answers.max_new_tokens, "temperature": answers.temperature}
    return on_policy(**knobs, eos_id=ends, share=share)
