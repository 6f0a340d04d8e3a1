"""Programs lowered and compiled on abstract values, for devices that may not be here, and what they need."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError


def lowered(function: Any, *arguments: Any, mesh: sharding.Mesh, backend: str) -> Lowered:
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


@dataclass(frozen=True)
class Needed:
    """Bytes per device of a compiled step, as the compiler plans them."""

    arguments: int
    temporaries: int
    outputs: int  # beyond the arguments they are written over

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.outputs


def needed(compiled: jax.stages.Compiled) -> Needed:
    plan = compiled.memory_analysis()
    outputs = max(plan.output_size_in_bytes - plan.alias_size_in_bytes, 0)
    return Needed(plan.argument_size_in_bytes, plan.temp_size_in_bytes, outputs)


def compiled_or_needed(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, int]:
    """(the program, bytes per device); the program is None where the compiler itself finds that it does not fit.

    The bytes are then what it names: all, or at least the temporaries.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
            raise
        used = re.search(r"Used ([\d.]+)([KMGT])|\(([\d.]+)([KMGT])\) exceeds", str(error))
        if used is None:
            raise  # a shortage in other words than those known here
        size, unit = used[1] or used[3], used[2] or used[4]
        return None, int(float(size) * 1024 ** ("KMGT".index(unit) + 1))
    return compiled, needed(compiled).total


@contextlib.contextmanager
def at_effort(effort: float) -> Iterator[None]:
    """What is compiled inside is optimised as much as libtpu does by itself (0), or less, down to -1."""
    name = "jax_exec_time_optimization_effort"
    before = getattr(jax.config, name)
    jax.config.update(name, effort)
    try:
        yield
    finally:
        jax.config.update(name, before)


@contextlib.contextmanager
def short_of_memory(what: str, advice: str) -> Iterator[None]:
    """What XLA says when a device has no memory left, as a user's line."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{what} needs more memory than a device has ({reason}); {advice}") from error


def bytes_limit(device: Any) -> int | None:
    """What one device offers: its own memory, or its share of what the machine has free; None where nobody says."""
    if device.platform == "cpu":
        free = _machine_bytes_free()
        return free and free // jax.local_device_count()
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except jax.errors.JaxRuntimeError:  # a device that is only described
        return None


def processors() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_bytes_free() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
