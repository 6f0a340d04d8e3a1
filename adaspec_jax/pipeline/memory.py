"""What a stage gives up so that it fits its devices: found by compiling it, not by guessing."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.program import Memory

SPARE = 0.05  # of a device's memory, left to what no program's plan knows
LORA_RANK = 16  # that "auto" takes


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


def _machine_bytes_free() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def choose(
    written: Memory, *, rows: int, may_adapt: bool, limit: int | None, bytes_of: Callable[[Memory], int]
) -> tuple[Memory, int]:
    """The first step of the `ladder` that needs no more than `limit` bytes, and what it needs.

    Args:
      rows: of a batch, per group of devices that rows are spread over.
      may_adapt: whether low-rank adapters may stand in for the whole model (the target stage).
      bytes_of: compiles the stage and tells its bytes per device; asked more than once, so it should remember.

    UserError, by how much the last step is too large, where nothing fits.
    """
    tried = written, 0
    for memory in ladder(written, rows=rows, may_adapt=may_adapt, fits=lambda m: limit is None or bytes_of(m) <= limit):
        tried = memory, bytes_of(memory)
        if limit is None or tried[1] <= limit:
            return tried
    size, over = (f"{count / 2**30:.2f}" for count in (tried[1], tried[1] - limit))
    raise UserError(
        f"a step needs {size} GiB per device with {tried[0].in_words()}, {over} more than there are; use "
        "more devices along mesh.fsdp or mesh.tensor, or a smaller batch_size or data.max_length"
    )


def ladder(
    written: Memory, *, rows: int, may_adapt: bool, fits: Callable[[Memory], bool] = lambda memory: True
) -> Iterator[Memory]:
    """What "auto" tries, in order, each on top of the one before.

    1. micro-batches, doubled down to one row per device; 2. rematerialised layers; 3. bfloat16 moments; 4. bfloat16
    master weights; 5. factored moments; 6. low-rank adapters in place of the whole model, with everything from step 3
    on taken back. Where even single rows do not fit (`fits`), the doublings in between are not tried.
    """
    yield written
    parts = [n for n in range(written.micro_batches + 1, rows + 1) if rows % n == 0]
    last = replace(written, micro_batches=parts[-1]) if parts else written
    if parts and fits(last):
        at = written.micro_batches
        for n in parts:
            if n >= 2 * at or n == parts[-1]:
                at = n
                yield replace(written, micro_batches=n)
    memory = last
    for change in (
        {"rematerialise": True},
        {"moments": "bfloat16"},
        {"master": "bfloat16"},
        {"moments": "factored"},
    ):
        changed = replace(memory, **change)
        if changed != memory and not (change == {"moments": "bfloat16"} and memory.moments == "factored"):
            memory = changed
            yield memory
    if may_adapt and not written.lora_rank:
        yield replace(last, rematerialise=True, lora_rank=LORA_RANK)
