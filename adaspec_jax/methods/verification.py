"""An independent draft's guesses verified by other rules than in `vanilla` and `specinfer`, all of them lossless."""

from __future__ import annotations

from functools import partial

from adaspec_jax.decoding import (
    TreeDrafter,
    block_verification,
    k_sequential,
    match_sample,
    traversal_verification,
)
from adaspec_jax.methods.independent import LENGTH, chain, length_of
from adaspec_jax.methods.method import A_DRAFT, Given, Method


def _branches(given: Given, *, replacement: bool, draft_length: int | None, siblings: int) -> TreeDrafter:
    """So many first guesses, each the beginning of a chain."""
    if siblings < 1:
        raise ValueError(f"siblings is {siblings}; it must be at least 1")
    branching = (siblings, *(1,) * (length_of(given, draft_length) - 1))
    return TreeDrafter(given.draft, branching=branching, replacement=replacement)


_SIBLINGS = {**LENGTH, "siblings": 3}  # 3 is ours

# Block verification; nothing else about the method. Its gain is at temperatures above 0.
BLOCK = Method(
    name="block_verification",
    drafter=chain,
    accept=block_verification,
    paper="arXiv 2403.10444",
    needs=(A_DRAFT,),
    knobs=LENGTH,
)
# The target's own sample at every node: what is left where a draft's law is not kept.
MATCH = Method(name="match", drafter=chain, accept=match_sample, needs=(A_DRAFT,), knobs=LENGTH)
# SpecTr draws k whole drafts and keeps all of them that agree with what was accepted; here siblings are drawn at the
# first guess alone, and the accepted one's chain goes on.
KSEQ = Method(
    name="kseq",
    drafter=partial(_branches, replacement=True),
    accept=k_sequential,
    paper="arXiv 2310.15141",
    needs=(A_DRAFT,),
    knobs=_SIBLINGS,
)
# The same shape, with first guesses that differ: at one place the strongest of the rules here, by enumeration.
DISTINCT = Method(name="distinct", drafter=partial(_branches, replacement=False), needs=(A_DRAFT,), knobs=_SIBLINGS)
# That tree once more, judged from its leaves on.
TRAVERSAL = Method(
    name="traversal",
    drafter=partial(_branches, replacement=False),
    accept=traversal_verification,
    paper="arXiv 2505.12398",
    needs=(A_DRAFT,),
    knobs=_SIBLINGS,
)
VERIFICATION = (BLOCK, MATCH, KSEQ, DISTINCT, TRAVERSAL)
