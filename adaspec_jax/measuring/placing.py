"""Where a measurement runs: rows over the devices there are, models on all of them or cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from adaspec_jax import models
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.methods import Given


def mesh_of(asked: str | None, rows: int) -> Mesh:
    """The mesh of "data=2,tensor=4"; without a word, `rows` over as many devices as divide them.

    UserError for an axis that does not exist, more devices than there are, or rows that do not divide.
    """
    if asked is None:
        return sharding.make_mesh(max(n for n in range(1, jax.device_count() + 1) if rows % n == 0))
    sizes = dict.fromkeys(sharding.AXES, 1)
    for part in asked.split(","):
        axis, _, count = part.partition("=")
        if axis not in sizes:
            raise UserError(f'--mesh {asked}: there is no axis "{axis}"{did_you_mean(axis, sizes)}')
        if not count.isdecimal() or not int(count):
            raise UserError(f'--mesh {asked}: "{count}" is no number of devices, as in data=2,tensor=4')
        sizes[axis] = int(count)
    try:
        mesh = sharding.make_mesh(**sizes)
    except ValueError as error:
        raise UserError(f"--mesh {asked}: {error}") from None
    if rows % (groups := sizes["data"] * sizes["fsdp"]):
        raise UserError(f"--mesh {asked}: {rows} rows do not divide over {groups} groups of devices")
    return mesh


def placed(given: Given, mesh: Mesh) -> Given:
    """The models on the mesh, as decoding reads them; one that is both target and draft lies there once."""
    there = given.changed(lambda model: sharding.shard(for_decoding(model, mesh), mesh))
    tables = {name: sharding.shard(each, mesh) for name, each in there.foreign.items()}  # on the devices of the models
    return dataclasses.replace(there, foreign=tables)


def for_decoding(model: models.CausalLM, mesh: Mesh, products: str | None = None) -> models.CausalLM:
    """Laid out for decoding where every device holds all of it; models that are cut keep the form they are cut by."""
    return model.for_decoding(products) if is_whole(mesh) else model.unstacked()


def is_whole(mesh: Mesh) -> bool:
    """Whether every device of the mesh holds whole models."""
    return mesh.shape["fsdp"] * mesh.shape["tensor"] == 1


def rows_on(mesh: Mesh) -> Callable[[Any], Any]:
    """What puts rows onto the mesh."""
    return lambda rows: sharding.shard_rows(rows, mesh)
