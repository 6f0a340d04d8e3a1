"""A slice of devices as plans see it: what it offers, what a program needs of it, how large a batch it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import compiled_or_needed, lowered, needed
from adaspec_jax.devices.topologies import Topology
from adaspec_jax.pipeline.layout import row_groups
from adaspec_jax.planning.kept import Kept, Sized, fingerprint
from adaspec_jax.planning.roofline import argument_bytes, bytes_of_parts
from adaspec_jax.planning.step_costs import collective_bytes

PROBES = 8  # programs that a search compiles, at most
MOST_GROWTH = 8  # of a batch, from one of them to the next


@dataclass(frozen=True)
class Slice:
    """Devices that need not be here, laid out as the config asks."""

    topology: Topology
    mesh: sharding.Mesh
    limit: int | None  # bytes that a device offers, where somebody says
    compiling: bool = True  # or estimated, without a compiler
    effort: float = 0.0  # of the compiler, as `ahead_of_time.at_effort` says
    kept: Kept = field(default_factory=Kept, compare=False)

    @property
    def groups(self) -> int:
        """Of devices, over which the rows of a batch are spread."""
        return row_groups(self.mesh)

    def program(self, function: Callable, *arguments, more: int, rounds: float | None = None) -> tuple[Any, Sized]:
        """(jaxpr, what it needs); without a compiler, the arguments' bytes and `more`.

        `rounds`: how often loops run whose length the compiler does not know; None: what is sent is not asked.
        """
        jaxpr, lowering = lowered(function, *arguments, mesh=self.mesh, backend=self.topology.backend)
        if not self.compiling:
            return jaxpr, Sized(argument_bytes(arguments) + more)
        key = fingerprint(lowering, self.topology, effort=self.effort, rounds=rounds)
        if (found := self.kept.find(key)) is None:
            compiled, size = compiled_or_needed(lowering)
            found = Sized(size)
            if compiled is not None:
                sent = None if rounds is None else collective_bytes(compiled.as_text(), rounds=rounds)
                found = Sized(size, needed(compiled), sent)
            self.kept.keep(key, found)
        return jaxpr, found

    def figures(self, sized: Sized, *, rows: int, length: int) -> dict[str, Any]:
        """Of a program for a batch of rows x length tokens."""
        return {
            "fits": self.limit is None or sized.size <= self.limit,
            "hbm_bytes": sized.size,
            "hbm_limit_bytes": self.limit,
            "how": "compiled" if self.compiling else "estimated: libtpu is not installed",
            "effort": self.effort,
            **bytes_of_parts(sized.parts),
            "mesh": dict(self.mesh.shape),
            "batch": rows,
            "length": length,
            "largest_batch": None,
        }

    def largest(self, rows: int, size: int, step: int, bytes_at: Callable[[int], int]) -> int:
        """A multiple of `step` rows that fits, while an eighth more does not; 0 where no such fits.

        By lines through compiled sizes, in at most `PROBES` of them: then it is the largest that was seen to fit.
        """
        sizes, guess = {rows: size}, 2 * rows if size <= self.limit else rows // 2 // step * step
        for _ in range(PROBES):
            if guess < step:
                guess = step
            if guess in sizes:
                break
            sizes[guess] = bytes_at(guess)
            fitting = max((n for n in sizes if sizes[n] <= self.limit), default=0)
            above = min((n for n in sizes if sizes[n] > self.limit), default=MOST_GROWTH * fitting)
            if above - fitting <= max(fitting // 8, step):
                break
            guess = _on_the_line(sizes, self.limit)
            if not fitting < guess < above or guess // step * step == fitting:
                guess = (fitting + above) // 2
            guess = guess // step * step
        return max((n // step * step for n in sizes if sizes[n] <= self.limit), default=0)


def _on_the_line(sizes: Mapping[int, int], limit: int) -> int:
    """Where a line through the two sizes nearest the limit meets it."""
    (n, size), (other, other_size) = sorted(sizes.items(), key=lambda known: abs(known[1] - limit))[:2]
    slope = (other_size - size) / (other - n)
    return int(n + (limit - size) / slope) if slope > 0 else 0
