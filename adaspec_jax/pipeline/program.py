"""What a stage compiles: its objective, optimiser, state and step, from the config, on real models or abstract ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from adaspec_jax import models
from adaspec_jax.config import Draft, Experiment, Fit, draft_schedule
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
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
class Memory:
    """What a stage does to need less memory, and how its layers are laid out: decided before it begins, then kept."""

    micro_batches: int = 1
    rematerialise: bool = False
    moments: str = "float32"
    master: str = "float32"
    lora_rank: int = 0
    scanned: bool = False

    @classmethod
    def written(cls, config: Experiment, name: str, backend: str) -> Memory:
        """As the config has it. "auto" scans layers on accelerators, where compiling costs more than slicing."""
        spec: Fit = getattr(config, name)
        scanned = config.layers == "scanned" or (config.layers == "auto" and backend != "cpu")
        knobs = spec.micro_batches, spec.rematerialise, spec.moments, spec.master
        return cls(*knobs, lora_rank=getattr(spec, "lora_rank", 0), scanned=scanned)

    def in_words(self) -> str:
        """The knobs that are not at their defaults."""
        words = [f"{self.micro_batches} micro-batches"] * (self.micro_batches > 1)
        words += ["layers rematerialised"] * self.rematerialise
        words += [f"{self.moments} moments"] * (self.moments != "float32")
        words += [f"{self.master} master weights"] * (self.master != "float32")
        words += [f"LoRA of rank {self.lora_rank}"] * (self.lora_rank > 0)
        return ", ".join(words) or "nothing given up"


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


def schedule(config: Experiment, name: str) -> tuple[float, int]:
    """(epochs, batch size) of a stage."""
    spec: Fit = getattr(config, name)
    return draft_schedule(spec) if name == "draft" else (spec.epochs, spec.batch_size)


def mesh_for(
    config: Experiment, devices: Sequence[Any] | None = None, more: Mapping[str, int] = MappingProxyType({})
) -> sharding.Mesh:
    """The devices to use, of these or of all: as many as divide every batch, where the config leaves it open.

    `more`: rows of further batches, by what to call them.
    """
    mesh = config.mesh
    available = len(jax.devices() if devices is None else devices) // mesh.tensor
    batches = {f"config.{stage}.batch_size": schedule(config, stage)[1] for stage in ("target", "reference", "draft")}
    batches |= {"config.evaluation.batch_size": config.evaluation.batch_size, **more}
    shared = math.gcd(*batches.values())

    def most(given: int, beside: int) -> int:
        if given > 0:
            return given
        return max((n for n in range(1, available // beside + 1) if shared % (n * beside) == 0), default=1)

    fsdp = most(mesh.fsdp, max(mesh.data, 1))
    data = most(mesh.data, fsdp)
    for key, rows in batches.items():
        if rows % (data * fsdp):
            share = f"mesh.data * mesh.fsdp = {data * fsdp}"
            raise UserError(f"{key} makes batches of {rows} rows, which {share} does not divide; change either")
    for stage in ("target", "draft"):
        check_tensor_axis(config, stage)
    try:
        return sharding.make_mesh(data, fsdp, mesh.tensor, devices=devices)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None


def check_tensor_axis(config: Experiment, stage: str) -> None:
    """UserError where mesh.tensor does not divide what the table lays along it, which would then stay whole."""
    if config.mesh.tensor == 1 or table_of(config, stage) is sharding.REPLICATED:
        return
    architecture = models.config_from_hf(getattr(config, stage).architecture.hf_config())
    for name in ("num_heads", "num_kv_heads", "intermediate_size"):
        if (size := getattr(architecture, name)) % config.mesh.tensor:
            raise UserError(
                f"config.mesh.tensor is {config.mesh.tensor}, which does not divide the {stage}'s {name} {size}; "
                'choose a divisor, or for a small draft mesh.draft="replicated"'
            )


def table_of(config: Experiment, name: str) -> sharding.Table:
    """How the parameters of a model lie on the mesh: the target's by the table, the small ones' as the config says."""
    return sharding.TABLE if name == "target" or config.mesh.draft == "sharded" else sharding.REPLICATED


def chunking_for(config: Experiment, mesh: sharding.Mesh, backend: str) -> Chunking:
    """One group of rows for each device that the batch's rows are spread over."""
    chunking = Chunking.for_backend(backend, groups=mesh.shape["data"] * mesh.shape["fsdp"])
    return replace(chunking, logits=config.loss_chunk or chunking.logits)


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


def lowered(function: Callable, *arguments: Any, mesh: sharding.Mesh, backend: str) -> Lowered:
    """A jitted function on abstract arguments; nothing is allocated and nothing runs. `compile()` tells its needs."""
    with jax.set_mesh(mesh):
        traced = function.trace(*arguments)
        return Lowered(traced.jaxpr, traced.lower(lowering_platforms=(backend,)))


class Lowered(NamedTuple):
    """A program before it is compiled."""

    jaxpr: Any
    lowering: jax.stages.Lowered


def abstract(tree: Any, mesh: sharding.Mesh, table: sharding.Table = sharding.TABLE) -> Any:
    """Shapes and types of a tree, laid out on the mesh."""
    placed = sharding.placements(tree, mesh, table)
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, placed)
