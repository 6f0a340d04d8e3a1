"""Methods whose guesses come from an independent draft model, and plain decoding, which has none."""

from __future__ import annotations

from adaspec_jax.decoding import ChainDrafter, NoDraft, TreeDrafter
from adaspec_jax.methods.method import A_DRAFT, Given, Method

# From memory of the paper, not checked against its code: (1, 1, 3, 1, 1, ...), three chains after two common guesses.
_EXPANSION = (1, 1, 3)


def chain(given: Given, *, draft_length: int | None) -> ChainDrafter:
    """The smallest draft's chain of guesses."""
    return ChainDrafter(given.draft, length=length_of(given, draft_length))


def _tree(given: Given, *, draft_length: int | None) -> TreeDrafter:
    depth = length_of(given, draft_length)
    return TreeDrafter(given.draft, branching=(*_EXPANSION, *(1,) * depth)[:depth])


def length_of(given: Given, draft_length: int | None) -> int:
    """Guesses in a row: the knob's, or what is given beside the method. ValueError below 1."""
    length = given.draft_length if draft_length is None else draft_length
    if length < 1:
        raise ValueError(f"draft_length is {length}; it must be at least 1")
    return length


def halves(length: int) -> tuple[int, ...]:
    """Two smaller widths for verifications, so that a short round is not as dear as a long one."""
    return tuple(sorted({length // 4, length // 2} - {0, length}))


LENGTH = {"draft_length": None}  # the knob of a chain; None: as given beside the method
PLAIN = Method(name="plain", drafter=lambda given: NoDraft())
VANILLA = Method(
    name="vanilla",
    drafter=chain,
    paper="arXiv 2211.17192, 2302.01318",
    needs=(A_DRAFT,),
    knobs=LENGTH,
)
SPECINFER = Method(name="specinfer", drafter=_tree, paper="arXiv 2305.09781", needs=(A_DRAFT,), knobs=LENGTH)
