"""What a stage compiles: its objective, optimiser, state and step, on real models or abstract ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from adaspec_jax import models
from adaspec_jax.config import Fit
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import abstract
from adaspec_jax.pipeline.memory import Memory
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.training import (
    Batch,
    Frozen,
    State,
    adamw,
    adapting,
    init_lora,
    init_state,
    learning_rate,
    make_step,
    merged,
)


@dataclass(frozen=True)
class Program:
    """A stage without its data: how its state begins, what a step does, and what model comes out."""

    memory: Memory
    dtype: str
    step: Callable
    optimizer: Any
    table: sharding.Table
    packed: bool = False  # rows of a batch hold several examples
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


def program(stage: StageSpec, memory: Memory) -> Program:
    """The stage's program where it gives up what `memory` says."""
    objective = stage.objective(micro_batches=memory.micro_batches)
    if memory.lora_rank:
        objective = adapting(objective)
    optimizer = _optimizer(stage.fit, memory, stage.updates)
    step = make_step(
        objective,
        optimizer,
        compute_dtype=stage.dtype,
        average_decay=stage.average_decay or 0.0,
        rewrite=stage.rewrite,
        guarded=stage.skipped > 0,
    )
    kinds = {"packed": stage.packed, "averaged": stage.average_decay is not None}
    return Program(memory, stage.dtype, step, optimizer, stage.table, **kinds)


def _optimizer(fit: Fit, memory: Memory, updates: int) -> optax.GradientTransformation:
    peak = fit.lora_lr if memory.lora_rank else fit.lr
    rate = learning_rate(peak, steps=updates, schedule=fit.schedule, warmup_steps=fit.warmup_steps)
    knobs = {"weight_decay": fit.weight_decay, "clip_norm": fit.clip_norm, "accumulate": fit.accumulate}
    return adamw(rate, **knobs, b1=fit.beta1, b2=fit.beta2, eps=fit.eps, moments=memory.moments)


def step_arguments(
    made: Program,
    model: models.CausalLM,
    frozen: Frozen,
    *,
    mesh: sharding.Mesh,
    rows: int,
    length: int,
    stored: Mapping[str, tuple[tuple[int, ...], Any]] = MappingProxyType({}),
) -> tuple[State, Frozen, Batch]:
    """What the step takes, abstract and laid out: for models as they come to the stage and rows x length tokens.

    `stored`: what a store has beside every token, {column: (shape, type)}.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = abstract(jax.eval_shape(made.begin, model, key), mesh, made.table)
    beside = jax.eval_shape(made.beside, frozen, model)
    target, base = (abstract(part, mesh) for part in (beside.target, beside.base))
    placed = NamedSharding(mesh, sharding.BATCH)

    def per_token(dtype: Any, entry: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, length, *entry), dtype, sharding=placed)

    columns = {name: per_token(dtype, entry) for name, (entry, dtype) in stored.items()}
    columns |= {"segments_BT": per_token(jnp.int32)} if made.packed else {}
    frozen = Frozen(target, abstract(beside.reference, mesh, made.table), base)
    return state, frozen, Batch(per_token(jnp.int32), per_token(bool), **columns)
