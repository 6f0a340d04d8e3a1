"""Methods of an independent draft whose trees grow where it thinks them likeliest."""

from __future__ import annotations

from typing import Any

from adaspec_jax.decoding import Fallback, GrowthDrafter, match_sample
from adaspec_jax.methods.independent import halves
from adaspec_jax.methods.method import A_DRAFT, Given, Method


def _specexec(given: Given, **sizes: Any) -> GrowthDrafter:
    return GrowthDrafter(given.draft, **sizes)


def _edgellm(given: Given, *, budget: int, depth: int, share: float, threshold: float) -> GrowthDrafter:
    """One node is read at a time, and may get a second child; a tree that falls back early is verified narrowly."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and below 1")
    search: dict[str, Any] = {"budget": budget, "beams": 1, "branch": 2, "depth": depth, "decay": 1.0, "share": share}
    return GrowthDrafter(given.draft, **search, fallback=Fallback(threshold), widths=halves(budget))


SPECEXEC = Method(
    name="specexec",
    drafter=_specexec,
    accept=match_sample,
    paper="arXiv 2406.02532",
    needs=(A_DRAFT,),
    knobs={"budget": 64, "beams": 32, "branch": 16, "depth": 16, "decay": 0.95},  # budget and depth: ours
)
# The threshold is from notes on the paper; that the likeliest path is always the next to go on, and all other numbers,
# are ours. Drafting on while a large model is read from storage is no matter of one program, and left out.
EDGELLM = Method(
    name="edgellm",
    drafter=_edgellm,
    paper="arXiv 2309.04255",
    needs=(A_DRAFT,),
    knobs={"budget": 32, "depth": 16, "share": 0.3, "threshold": 0.01},
)
GROWTH = (SPECEXEC, EDGELLM)
