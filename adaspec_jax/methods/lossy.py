"""An independent draft's guesses kept where they are good enough: faster, and not the target's own law any more."""

from __future__ import annotations

from adaspec_jax.decoding import ChainDrafter, Confident, Fuzzy, Lenient, Rollback, Tolerance, TopBeta, Typical
from adaspec_jax.methods.independent import LENGTH, chain, halves, length_of
from adaspec_jax.methods.method import A_DRAFT, Given, Method


def _confident_chain(given: Given, *, draft_length: int | None, fallback: float) -> ChainDrafter:
    """Guesses while the draft is sure; what it is not sure of the target says."""
    if not 0 <= fallback <= 1:
        raise ValueError(f"fallback is {fallback}; it must be a probability, from 0 to 1")
    length = length_of(given, draft_length)
    return ChainDrafter(given.draft, length, Confident(fallback), halves(length))


# The threshold and the divergence are those of their code's example. It drafts the likeliest token at any temperature;
# here the chain draws at the sampling's.
FSD = Method(
    name="fsd",
    drafter=chain,
    accept=Fuzzy(0.4, "fsd_js"),
    lossless=False,
    paper="arXiv 2502.20704",
    needs=(A_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("threshold", "divergence", "top_k"),
)
# DistillSpec's lenience; 0.5 is ours.
LENIENT = Method(
    name="lenient",
    drafter=chain,
    accept=Lenient(0.5),
    lossless=False,
    paper="arXiv 2310.08461",
    needs=(A_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("epsilon", "form"),
)
# Medusa's rule, without its heads.
TYPICAL = Method(
    name="typical",
    drafter=chain,
    accept=Typical(),
    lossless=False,
    paper="arXiv 2401.10774",
    needs=(A_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("epsilon", "delta"),
)
# SpecDec's rule, without its drafter, which fills a whole block in one pass.
TOP_BETA = Method(
    name="top_beta",
    drafter=chain,
    accept=TopBeta(),
    lossless=False,
    paper="arXiv 2203.16487",
    needs=(A_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("beta", "tau"),
)
# After VADUSA, whose rule is not known to us, without its heads and its speech; 2 is ours.
TOLERANCE = Method(
    name="tolerance",
    drafter=chain,
    accept=Tolerance(),
    lossless=False,
    paper="arXiv 2410.21951",
    needs=(A_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("samples",),
)
# Theirs discards the token of which the draft is not sure; here it is not drafted, which comes to the same.
BILD = Method(
    name="bild",
    drafter=_confident_chain,
    accept=Rollback(),
    lossless=False,
    paper="arXiv 2302.07863",
    needs=(A_DRAFT,),
    knobs={"draft_length": 10, "fallback": 0.6},
    rule_knobs=("limit",),
)
LOSSY = (FSD, LENIENT, TYPICAL, TOP_BETA, TOLERANCE, BILD)
