"""A slice of devices as plans see it: what it offers, what a program needs of it, how large a batch it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import compiled_or_needed, lowered
from adaspec_jax.devices.topologies import Topology
from adaspec_jax.pipeline.layout import row_groups
from adaspec_jax.planning.roofline import argument_bytes, bytes_of_parts


@dataclass(frozen=True)
class Slice:
    """Devices that need not be here, laid out as the config asks."""

    topology: Topology
    mesh: sharding.Mesh
    limit: int | None  # bytes that a device offers, where somebody says
    compiling: bool = True  # or estimated, without a compiler

    @property
    def groups(self) -> int:
        """Of devices, over which the rows of a batch are spread."""
        return row_groups(self.mesh)

    def program(self, function: Callable, *arguments, more: int) -> tuple[Any, jax.stages.Compiled | None, int]:
        """(jaxpr, program, bytes per device); without a compiler, the arguments' bytes and `more`."""
        jaxpr, lowering = lowered(function, *arguments, mesh=self.mesh, backend=self.topology.backend)
        if self.compiling:
            return jaxpr, *compiled_or_needed(lowering)
        return jaxpr, None, argument_bytes(arguments) + more

    def figures(self, compiled: jax.stages.Compiled | None, size: int, *, rows: int, length: int) -> dict[str, Any]:
        """Of a program that takes `size` bytes of each device for a batch of rows x length tokens."""
        return {
            "fits": self.limit is None or size <= self.limit,
            "hbm_bytes": size,
            "hbm_limit_bytes": self.limit,
            "how": "compiled" if self.compiling else "estimated: libtpu is not installed",
            **bytes_of_parts(compiled),
            "mesh": dict(self.mesh.shape),
            "batch": rows,
            "length": length,
            "largest_batch": None,
        }

    def largest(self, rows: int, size: int, step: int, bytes_at: Callable[[int], int]) -> int:
        """A multiple of `step` rows, by a line through two compiled sizes and a compiled check; 0 where none fits."""
        other = rows * 2 if size <= self.limit else max(rows // 2 // step, 1) * step
        if other == rows:
            return 0
        slope = (bytes_at(other) - size) / (other - rows)
        guess = int((rows + (self.limit - size) / max(slope, 1)) // step * step)
        guess = min(max(guess, 0), 4096 * step)
        while guess > 0 and bytes_at(guess) > self.limit:
            guess -= max(guess // 16 // step, 1) * step
        return max(guess, 0)
