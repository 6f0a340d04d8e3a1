"""What a stage compiles: its objective, optimiser, state and step, from the config, on real models or abstract ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from adaspec_jax import models
from adaspec_jax.config import Draft, Experiment, Fit
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import abstract
from adaspec_jax.pipeline.layout import table_of
from adaspec_jax.pipeline.memory import Memory
from adaspec_jax.pipeline.on_policy import on_policy
from adaspec_jax.training import (
    Batch,
    Chunking,
    Frozen,
    State,
    adamw,
    adapting,
    init_lora,
    init_state,
    learning_rate,
    make_step,
    merged,
    objectives,
)
from adaspec_jax.training.divergences import find_divergence
from adaspec_jax.training.selection import find_selection


@dataclass(frozen=True)
class Program:
    """A stage without its data: how its state begins, what a step does, and what model comes out."""

    name: str
    memory: Memory
    dtype: str
    step: Callable
    optimizer: Any
    table: sharding.Table
    averaged: bool = False  # the state keeps the moving average that stands for the reference

    def begin(self, model: models.CausalLM, key: jax.Array) -> State:
        """The state before the first step; a pure function, so that `jax.eval_shape` tells its sizes."""
        if self.memory.lora_rank:
            base = self.laid_out(model)
            return init_state(init_lora(base, self.memory.lora_rank, key), self.optimizer, key)
        model = self.laid_out(model).with_rematerialisation(self.memory.rematerialise)
        return init_state(model, self.optimizer, key, master=self.memory.master, averaged=self.averaged)

    def beside(self, frozen: Frozen, model: models.CausalLM) -> Frozen:
        """What the step only reads: the frozen models, and the one that adapters are fitted to."""
        target, reference = (None if m is None else self.laid_out(m) for m in (frozen.target, frozen.reference))
        base = None
        if self.memory.lora_rank:
            base = self.laid_out(model).astype(self.dtype).with_rematerialisation(self.memory.rematerialise)
        return Frozen(target, reference, base)

    def end(self, state: State, frozen: Frozen) -> models.CausalLM:
        """The fitted model, ordinary again."""
        model = merged(frozen.base, state.model) if self.memory.lora_rank else state.model
        return model.with_rematerialisation(False)

    def laid_out(self, model: models.CausalLM) -> models.CausalLM:
        # XLA:CPU merges what unrolled layers compute again with what they computed before.
        return model.stacked() if self.memory.scanned or self.memory.rematerialise else model


def program(
    name: str, config: Experiment, *, memory: Memory, chunking: Chunking, updates: int, eos_id: int = -1
) -> Program:
    """The stage's program for a number of optimiser updates; `eos_id` ends answers that are sampled on the way."""
    spec: Fit = getattr(config, name)
    shared = {"chunking": chunking, "micro_batches": memory.micro_batches}
    if name == "target":
        objective = objectives.fine_tune(**shared)
    elif name == "reference":
        objective = objectives.distill(find_divergence(config.reference.divergence), **shared)
    else:
        draft = config.draft
        objective = objectives.selective_distill(
            find_divergence(draft.divergence),
            fraction=_share_kept(draft, updates * spec.accumulate),
            normalize=draft.normalize,
            scope=draft.scope,
            shards=draft.shards,
            rule=find_selection(draft.selection),
            **shared,
        )
    if memory.lora_rank:
        objective = adapting(objective)
    optimizer = adamw(
        learning_rate(
            spec.lora_lr if memory.lora_rank else spec.lr,
            steps=updates,
            schedule=spec.schedule,
            warmup_steps=spec.warmup_steps,
        ),
        weight_decay=spec.weight_decay,
        clip_norm=spec.clip_norm,
        b1=spec.beta1,
        b2=spec.beta2,
        eps=spec.eps,
        accumulate=spec.accumulate,
        moments=memory.moments,
    )
    averaged = name == "draft" and config.draft.reference == "moving_average"
    step = make_step(
        objective,
        optimizer,
        compute_dtype=config.dtype,
        average_decay=config.draft.average_decay,
        rewrite=None if name == "target" else _rewrite(config, eos_id),
    )
    return Program(name, memory, config.dtype, step, optimizer, table_of(config, name), averaged)


def _share_kept(draft: Draft, batches: int) -> float | Callable[[jax.Array], jax.Array]:
    if draft.final_fraction is None:
        return draft.fraction
    return optax.linear_schedule(draft.fraction, draft.final_fraction, max(batches - 1, 1))


def _rewrite(config: Experiment, eos_id: int):
    answers = config.answers
    if answers.source not in ("draft", "mixed"):
        return None
    share = answers.share if answers.source == "mixed" else 1.0
    knobs = {"max_new_tokens": answers.max_new_tokens, "temperature": answers.temperature}
    return on_policy(**knobs, eos_id=eos_id, share=share)


def step_arguments(
    made: Program, model: models.CausalLM, frozen: Frozen, *, mesh: sharding.Mesh, rows: int, length: int
) -> tuple[State, Frozen, Batch]:
    """What the step takes, abstract and laid out: for models as they come to the stage and rows x length tokens."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = abstract(jax.eval_shape(made.begin, model, key), mesh, made.table)
    beside = jax.eval_shape(made.beside, frozen, model)
    target, base = (abstract(part, mesh) for part in (beside.target, beside.base))
    shape = partial(jax.ShapeDtypeStruct, (rows, length), sharding=NamedSharding(mesh, sharding.BATCH))
    frozen = Frozen(target, abstract(beside.reference, mesh, made.table), base)
    return state, frozen, Batch(shape(jnp.int32), shape(bool))
