"""Methods whose guesses come from an independent draft model, and plain decoding, which has none."""

from __future__ import annotations

from adaspec_jax.decoding import ChainDrafter, NoDraft, TreeDrafter
from adaspec_jax.methods.method import A_DRAFT, Given, Method

# From memory of the paper, not checked against its code: (1, 1, 3, 1, 1, ...), three chains after two common guesses.
_EXPANSION = (1, 1, 3)


def _tree(given: Given) -> TreeDrafter:
    depth = given.draft_length
    return TreeDrafter(given.draft, branching=(*_EXPANSION, *(1,) * depth)[:depth])


PLAIN = Method(name="plain", drafter=lambda given: NoDraft())
VANILLA = Method(
    name="vanilla",
    drafter=lambda given: ChainDrafter(given.draft, length=given.draft_length),
    paper="arXiv 2211.17192, 2302.01318",
    needs=(A_DRAFT,),
)
SPECINFER = Method(name="specinfer", drafter=_tree, paper="arXiv 2305.09781", needs=(A_DRAFT,))
