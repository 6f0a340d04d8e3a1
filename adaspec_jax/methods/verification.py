"""An independent draft's guesses verified by other rules than in `vanilla` and `specinfer`, all of them lossless."""

from __future__ import annotations

from adaspec_jax.decoding import ChainDrafter, TreeDrafter, block_verification, k_sequential, match_sample
from adaspec_jax.methods.method import A_DRAFT, Given, Method


def _chain(given: Given) -> ChainDrafter:
    return ChainDrafter(given.draft, length=given.draft_length)


def _branches(given: Given, siblings: int, *, replacement: bool) -> TreeDrafter:
    """So many first guesses, each the beginning of a chain."""
    branching = (siblings, *(1,) * (given.draft_length - 1))
    return TreeDrafter(given.draft, branching=branching, replacement=replacement)


# Block verification; nothing else about the method. Its gain is at temperatures above 0.
BLOCK = Method(name="block", drafter=_chain, accept=block_verification, paper="arXiv 2403.10444", needs=(A_DRAFT,))
# The target's own sample at every node: what servers do that cannot keep the draft's law.
MATCH = Method(name="match", drafter=_chain, accept=match_sample, needs=(A_DRAFT,))
# SpecTr draws k whole drafts and keeps all of them that agree with what was accepted; here siblings are drawn at the
# first guess alone, and the accepted one's chain goes on. k = 3 is ours.
KSEQ = Method(
    name="kseq",
    drafter=lambda given, *, siblings=3: _branches(given, siblings, replacement=True),
    accept=k_sequential,
    paper="arXiv 2310.15141",
    needs=(A_DRAFT,),
)
# The same shape, with first guesses that differ: at one place the strongest of the rules here, by enumeration.
DISTINCT = Method(
    name="distinct",
    drafter=lambda given, *, siblings=3: _branches(given, siblings, replacement=False),
    needs=(A_DRAFT,),
)
