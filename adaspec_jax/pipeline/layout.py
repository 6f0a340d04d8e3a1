"""How a run is laid over devices: mesh, tables, chunks of logits, and batches that divide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax

from adaspec_jax import config, models
from adaspec_jax.config import Draft, Fit, Qualifier, Target, draft_schedule
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.training import Chunking


def mesh_for(
    mesh: config.Mesh,
    fits: Mapping[str, Fit],
    decoded_rows: int,
    *,
    devices: Sequence[Any] | None = None,
    more: Mapping[str, int] = MappingProxyType({}),
) -> sharding.Mesh:
    """The devices to use, of these or of all: as many as divide every batch, where `mesh` leaves it open.

    Args:
      fits: the settings of "target", "reference" and "draft".
      decoded_rows: of an evaluation batch.
      more: rows of further batches, by what to call them.
    """
    available = len(jax.devices() if devices is None else devices) // mesh.tensor
    batches = {f"config.{name}.batch_size": schedule(fit)[1] for name, fit in fits.items()}
    batches |= {"config.evaluation.batch_size": decoded_rows, **more}
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
    for name in ("target", "draft"):
        check_tensor_axis(mesh, name, fits[name])
    try:
        return sharding.make_mesh(data, fsdp, mesh.tensor, devices=devices)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None


def check_tensor_axis(mesh: config.Mesh, name: str, fit: Target | Draft | Qualifier) -> None:
    """UserError where mesh.tensor does not divide what the table lays along it, which would then stay whole."""
    if mesh.tensor == 1 or table_of(mesh, name) is sharding.REPLICATED:
        return
    architecture = models.config_from_hf(fit.architecture.hf_config())
    for part in ("num_heads", "num_kv_heads", "expert_size" if architecture.experts else "intermediate_size"):
        if (size := getattr(architecture, part)) % mesh.tensor:
            raise UserError(
                f"config.mesh.tensor is {mesh.tensor}, which does not divide the {name}'s {part} {size}; "
                'choose a divisor, or for a small draft mesh.draft="replicated"'
            )


def table_of(mesh: config.Mesh, name: str) -> sharding.Table:
    """How the parameters of a model lie on the mesh: the target's by the table, the small ones' as the config says."""
    return sharding.TABLE if name == "target" or mesh.draft == "sharded" else sharding.REPLICATED


def chunking_for(loss_chunk: int, mesh: sharding.Mesh, backend: str) -> Chunking:
    """One group of rows for each device that the batch's rows are spread over; `loss_chunk` logits, 0: the default."""
    chunking = Chunking.for_backend(backend, groups=row_groups(mesh))
    return replace(chunking, logits=loss_chunk or chunking.logits)


def row_groups(mesh: sharding.Mesh) -> int:
    """How many groups of devices a batch's rows are spread over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def schedule(fit: Fit) -> tuple[float, int]:
    """(epochs, batch size) of a stage."""
    return draft_schedule(fit) if isinstance(fit, Draft) else (fit.epochs, fit.batch_size)
