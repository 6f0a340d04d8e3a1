"""What a stage gives up so that it fits its devices: found by compiling it, not by guessing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from adaspec_jax.config import Fit
from adaspec_jax.errors import UserError

SPARE = 0.05  # of a device's memory, left to what no program's plan knows
LORA_RANK = 16  # that "auto" takes


def choose(
    written: Memory, *, rows: int, may_adapt: bool, limit: int | None, bytes_of: Callable[[Memory], int]
) -> tuple[Memory, int]:
    """`descend`, and `UserError`, by how much the last step is too large, where nothing fits."""
    memory, size = descend(written, rows=rows, may_adapt=may_adapt, limit=limit, bytes_of=bytes_of)
    if limit is None or size <= limit:
        return memory, size
    needed, over = (f"{count / 2**30:.2f}" for count in (size, size - limit))
    raise UserError(
        f"a step needs {needed} GiB per device with {memory.in_words()}, {over} more than there are; use "
        "more devices along mesh.fsdp or mesh.tensor, or a smaller batch_size or data.max_length"
    )


def descend(
    written: Memory, *, rows: int, may_adapt: bool, limit: int | None, bytes_of: Callable[[Memory], int]
) -> tuple[Memory, int]:
    """The first step of the `ladder` that needs no more than `limit` bytes, else its last; and what that needs.

    Args:
      rows: of a batch, per group of devices that rows are spread over.
      may_adapt: whether low-rank adapters may stand in for the whole model (the target stage).
      bytes_of: compiles the stage and tells its bytes per device; asked more than once, so it should remember.
    """
    for memory in ladder(written, rows=rows, may_adapt=may_adapt, fits=lambda m: limit is None or bytes_of(m) <= limit):
        if limit is None or bytes_of(memory) <= limit:
            break
    return memory, bytes_of(memory)


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
    def written(cls, fit: Fit, *, scanned: bool) -> Memory:
        """As a stage's settings have it."""
        knobs = fit.micro_batches, fit.rematerialise, fit.moments, fit.master
        return cls(*knobs, lora_rank=getattr(fit, "lora_rank", 0), scanned=scanned)

    def in_words(self) -> str:
        """The knobs that are not at their defaults."""
        words = [f"{self.micro_batches} micro-batches"] * (self.micro_batches > 1)
        words += ["layers rematerialised"] * self.rematerialise
        words += [f"{self.moments} moments"] * (self.moments != "float32")
        words += [f"{self.master} master weights"] * (self.master != "float32")
        words += [f"LoRA of rank {self.lora_rank}"] * (self.lora_rank > 0)
        return ", ".join(words) or "nothing given up to save memory"


def scans_layers(layers: str, backend: str) -> bool:
    """Whether layers are stacked and one is compiled: "auto" does on accelerators, where compiling costs the most."""
    return layers == "scanned" or (layers == "auto" and backend != "cpu")
