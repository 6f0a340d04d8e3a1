"""Methods of a draft model whose tokenizer is another than the target's."""

from __future__ import annotations

from typing import Any

from adaspec_jax.decoding import match_sample
from adaspec_jax.decoding.drafters.models.foreign import Foreign
from adaspec_jax.decoding.drafters.models.intersection import IntersectionDrafter
from adaspec_jax.decoding.drafters.models.respelled import RespelledDrafter
from adaspec_jax.methods.independent import length_of
from adaspec_jax.methods.method import A_FOREIGN_DRAFT, Given, Method


def _smallest(given: Given) -> Foreign:
    return next(iter(given.foreign.values()))


def _tli(given: Given, *, draft_length: int | None) -> IntersectionDrafter:
    foreign = _smallest(given)
    if not foreign.shared:
        raise ValueError("no token of the target's is the draft's too, so that nothing can be guessed; try slem")
    return IntersectionDrafter(foreign, length=length_of(given, draft_length))


def _slem(given: Given, *, draft_length: int | None) -> RespelledDrafter:
    return RespelledDrafter(_smallest(given), length=length_of(given, draft_length))


_SHARED: dict[str, Any] = {"paper": "arXiv 2502.05202", "needs": (A_FOREIGN_DRAFT,), "knobs": {"draft_length": None}}
TLI = Method(name="tli", drafter=_tli, **_SHARED)
SLEM = Method(name="slem", drafter=_slem, accept=match_sample, **_SHARED)
FOREIGN = (TLI, SLEM)
