"""Methods whose guesses come from an independent draft model, and plain decoding, which has none."""

from __future__ import annotations

from adaspec_jax.decoding import ChainDrafter, NoDraft, TreeDrafter
from adaspec_jax.methods.method import A_DRAFT, Given, Method

# From memory of the paper, not checked against its code: (1, 1, 3, 1, 1, ...), three chains after two common guesses.
_EXPANSION = (1, 1, 3)


def _chain(given: Given, *, draft_length: int | None) -> ChainDrafter:
    return ChainDrafter(given.draft, length=_length(given, draft_length))


def _tree(given: Given, *, draft_length: int | None) -> TreeDrafter:
    depth = _length(given, draft_length)
    return TreeDrafter(given.draft, branching=(*_EXPANSION, *(1,) * depth)[:depth])


def _length(given: Given, draft_length: int | None) -> int:
    length = given.draft_length if draft_length is None else draft_length
    if length < 1:
        raise ValueError(f"draft_length is {length}; it must be at least 1")
    return length


_KNOBS = {"draft_length": None}  # None: as given beside the method
PLAIN = Method(name="plain", drafter=lambda given: NoDraft())
VANILLA = Method(
    name="vanilla",
    drafter=_chain,
    paper="arXiv 2211.17192, 2302.01318",
    needs=(A_DRAFT,),
    knobs=_KNOBS,
)
SPECINFER = Method(name="specinfer", drafter=_tree, paper="arXiv 2305.09781", needs=(A_DRAFT,), knobs=_KNOBS)
