"""Methods whose guesses come from an independent draft model, and plain decoding, which has none."""

from __future__ import annotations

from typing import Any

from adaspec_jax.decoding import ChainDrafter, NoDraft, TopBeta, TreeDrafter
from adaspec_jax.decoding.drafters.models.masked import MaskDrafter
from adaspec_jax.methods.method import A_DRAFT, Given, Method, Need

# From memory of the paper, not checked against its code: (1, 1, 3, 1, 1, ...), three chains after two common guesses.
_EXPANSION = (1, 1, 3)


def chain(given: Given, *, draft_length: int | None) -> ChainDrafter:
    """The smallest draft's chain of guesses."""
    return ChainDrafter(given.draft, length=length_of(given, draft_length))


def _masked(given: Given) -> Any:
    """The smallest draft whose config names a mask token; None where none does."""
    return next((draft for draft in given.drafts.values() if _mask_of(draft) >= 0), None)


def _mask_of(draft: Any) -> int:
    return getattr(getattr(draft, "config", None), "mask_token", -1)


def _at_masks(given: Given, *, draft_length: int | None) -> MaskDrafter:
    return at_masks(_masked(given), length_of(given, draft_length))


def at_masks(draft: Any, length: int) -> MaskDrafter:
    """So many guesses in a row of a draft that names its mask, or as many as its block has."""
    return MaskDrafter(draft, draft.config.mask_token, length, draft.config.mask_block)


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


A_MASKED_DRAFT = Need(
    "a draft model that guesses at mask tokens (--draft DIR, of draft.kind pard or specdec)",
    lambda given: _masked(given) is not None,
)
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
PARD = Method(
    name="pard",
    drafter=_at_masks,
    paper="arXiv 2504.18583",
    needs=(A_MASKED_DRAFT,),
    knobs=LENGTH,
)
# Its drafter is an encoder and decoder; here a decoder alone (draft.kind specdec), or one that is trained as PARD's.
SPECDEC = Method(
    name="specdec",
    drafter=_at_masks,
    accept=TopBeta(),
    lossless=False,
    paper="arXiv 2203.16487",
    needs=(A_MASKED_DRAFT,),
    knobs=LENGTH,
    rule_knobs=("beta", "tau"),
)
INDEPENDENT = (PLAIN, VANILLA, SPECINFER, PARD, SPECDEC)
