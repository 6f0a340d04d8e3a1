"""How a run is laid over devices: mesh, tables, chunks of logits, and batches that divide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax

from adaspec_jax import models
from adaspec_jax.config import Experiment, Fit, draft_schedule
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.training import (
    Chunking,
)


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


def schedule(config: Experiment, name: str) -> tuple[float, int]:
    """(epochs, batch size) of a stage."""
    spec: Fit = getattr(config, name)
    return draft_schedule(spec) if name == "draft" else (spec.epochs, spec.batch_size)
