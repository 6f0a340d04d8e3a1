"""An independent draft's guesses kept where they are good enough: faster, and not the target's own law any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from adaspec_jax.decoding import Accept, ChainDrafter, Confident, Fuzzy, Lenient, Rollback, Tolerance, TopBeta, Typical
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.methods.independent import LENGTH, chain, halves, length_of
from adaspec_jax.methods.method import A_DRAFT, Given, Method


def _confident_chain(given: Given, *, draft_length: int | None, fallback: float) -> ChainDrafter:
    """Guesses while the draft is sure; what it is not sure of the target says."""
    if not 0 <= fallback <= 1:
        raise ValueError(f"fallback is {fallback}; it must be a probability, from 0 to 1")
    length = length_of(given, draft_length)
    return ChainDrafter(given.draft, length, Confident(fallback), halves(length))


def _lossy(
    name: str, accept: Accept, paper: str, *, drafter: Callable[..., Drafter] = chain, **knobs: float | None
) -> Method:
    """A draft's chain under the rule, all of whose numbers are knobs."""
    rule: Any = accept  # a dataclass
    numbers = tuple(each.name for each in fields(rule))
    shared: dict[str, Any] = {"lossless": False, "needs": (A_DRAFT,), "rule_knobs": numbers}
    return Method(name=name, drafter=drafter, accept=accept, paper=paper, knobs=LENGTH | knobs, **shared)


# The threshold and the divergence are those of their code's example. It drafts the likeliest token at any temperature;
# here the chain draws at the sampling's.
FSD = _lossy("fsd", Fuzzy(0.4, "fsd_js"), "arXiv 2502.20704")
# DistillSpec's lenience; 0.5 is ours.
LENIENT = _lossy("lenient", Lenient(0.5), "arXiv 2310.08461")
# Medusa's rule, without its heads.
TYPICAL = _lossy("typical", Typical(), "arXiv 2401.10774")
# SpecDec's rule, without its drafter, which fills a whole block in one pass.
TOP_BETA = _lossy("top_beta", TopBeta(), "arXiv 2203.16487")
# After VADUSA, whose rule is not known to us, without its heads and its speech; 2 is ours.
TOLERANCE = _lossy("tolerance", Tolerance(), "arXiv 2410.21951")
# Theirs discards the token of which the draft is not sure; here it is not drafted, which comes to the same.
BILD = _lossy("bild", Rollback(), "arXiv 2302.07863", drafter=_confident_chain, draft_length=10, fallback=0.6)
LOSSY = (FSD, LENIENT, TYPICAL, TOP_BETA, TOLERANCE, BILD)
