"""Methods of heads on the target's features: rows for every kind of `models.heads`, by the kind's own shape."""

from __future__ import annotations

from dataclasses import fields
from functools import partial, singledispatch
from typing import Any

from adaspec_jax.decoding import ChainDrafter, Tolerance, Typical
from adaspec_jax.decoding.drafters.levels import Counts
from adaspec_jax.decoding.drafters.target.adapter import AdapterDrafter
from adaspec_jax.decoding.drafters.target.blocks import BlockDrafter
from adaspec_jax.decoding.drafters.target.collapse import FrameTree
from adaspec_jax.decoding.drafters.target.coupled import CoupledChain, CoupledGrowth
from adaspec_jax.decoding.drafters.target.features import EAGLE_TREE, FeatureDrafter, FeatureGrowth, FeatureTree
from adaspec_jax.decoding.drafters.target.look_ahead import LookAheadDrafter
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE, ParallelChain, ParallelTree
from adaspec_jax.decoding.drafters.target.sequential_heads import SequentialChain, SequentialTree
from adaspec_jax.decoding.drafters.target.slots import SlotChain, SlotTree
from adaspec_jax.decoding.stopping import UntilWeak
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.drafter_file import chain_method
from adaspec_jax.methods.independent import LENGTH, at_masks, halves, length_of
from adaspec_jax.methods.method import Given, Method, Need
from adaspec_jax.models import CausalLM
from adaspec_jax.models.heads import Head, Kind, find_kind, kinds
from adaspec_jax.models.heads.amphista import InSlots
from adaspec_jax.models.heads.ctc import Ctc
from adaspec_jax.models.heads.parts.blocks import BlocksOnTarget, InBlocks
from adaspec_jax.models.heads.parts.coupled import Coupled, CoupledOnTarget
from adaspec_jax.models.heads.parts.early import Early, OnFirstLayers
from adaspec_jax.models.heads.parts.look_ahead import LookAhead, OnSlots
from adaspec_jax.models.heads.parts.recurrent import OnTarget, Recurrent
from adaspec_jax.models.heads.parts.several import Beside, Several


def chain_of(draft: Any, target: Any, length: int) -> Drafter:
    """`length` guesses in a row by whatever drafts, or as many as it can: a draft model, or a head on the target."""
    if isinstance(draft, CausalLM):
        return ChainDrafter(draft, length) if draft.config.mask_token < 0 else at_masks(draft, length)
    return chain_on(draft.config.on_target(draft, target), length)


@singledispatch
def chain_on(on: Any, length: int) -> Drafter:
    """Guesses in a row by a head with what it shares with its target, after whose type a drafter is chosen."""
    raise TypeError(f"no chain of {type(on).__name__}")


chain_on.register(InSlots, SlotChain)
chain_on.register(BlocksOnTarget, BlockDrafter)
chain_on.register(OnTarget, FeatureDrafter)
chain_on.register(OnFirstLayers, AdapterDrafter)
chain_on.register(CoupledOnTarget, CoupledChain)
chain_on.register(OnSlots, LookAheadDrafter)


@chain_on.register
def _(on: Beside, length: int) -> Drafter:
    return (SequentialChain if on.reads_guesses else ParallelChain)(on, length)


def a_head(kind: str) -> Need:
    return Need(f"a head of the kind {kind} (--draft DIR)", lambda given: kind in _by_kind(given))


def _by_kind(given: Given) -> dict[str, Head]:
    """The heads by their kinds; a method is made where there is one of its own."""
    return {head.config.name: head for head in given.heads.values()}


def _beside(given: Given, kind: str) -> Any:
    head = _by_kind(given)[kind]
    return head.config.on_target(head, given.target)


def _chain(given: Given, *, kind: str, draft_length: int | None) -> Drafter:
    return chain_on(_beside(given, kind), length_of(given, draft_length))


def _static(given: Given, *, kind: str, depth: int) -> FeatureTree:
    return FeatureTree(_beside(given, kind), _cut(EAGLE_TREE, depth))


def _dynamic(given: Given, *, kind: str, budget: int, branch: int, depth: int, least: float) -> FeatureGrowth:
    widths = halves(budget) if least else ()
    return FeatureGrowth(_beside(given, kind), budget, branch, depth, least, widths)


def _frames(given: Given, *, kind: str, depth: int) -> FrameTree:
    return FrameTree(_beside(given, kind), _cut(MEDUSA_TREE, depth))


def _by_blocks(given: Given, *, kind: str, budget: int, branch: int, depth: int) -> CoupledGrowth:
    return CoupledGrowth(_beside(given, kind), budget, branch, depth)


def _ranks(given: Given, *, kind: str, depth: int | None) -> Drafter:
    """Medusa's tree, as deep as there are heads, or as it is set."""
    on = _beside(given, kind)
    counts = _cut(MEDUSA_TREE, min(on.guesses, len(MEDUSA_TREE)) if depth is None else depth)
    if isinstance(on, InSlots):
        return SlotTree(on, counts)
    return (SequentialTree if on.reads_guesses else ParallelTree)(on, counts)


def _until_weak(given: Given, *, kind: str, length: int, threshold: float) -> Drafter:
    """A chain that ends with the first guess that is weak: Kangaroo's double early exit."""
    stop = UntilWeak(threshold, limit=length)
    return AdapterDrafter(_beside(given, kind), length, stop, halves(length))


def _cut(counts: Counts, depth: int) -> Counts:
    """The tree's first levels."""
    if not 1 <= depth <= len(counts):
        raise ValueError(f"depth is {depth}; the tree has levels 1 to {len(counts)}")
    return counts[:depth]


# Their script's 60 counts the root, and its depth of 5 the levels after the first [code]; nothing is dropped.
_GROWTH = {"budget": 59, "branch": 10, "depth": 6, "least": 0.0}


def _rows(kind: type[Kind]) -> tuple[Method, ...]:
    """What is decoded with a kind's heads: its published tree, and a chain, as servers have it."""
    row = partial(Method, paper=kind.paper, needs=(a_head(kind.name),))
    chain = row(name=chain_method(kind.name), drafter=partial(_chain, kind=kind.name), knobs=LENGTH)
    if issubclass(kind, Ctc):
        return row(name=kind.name, drafter=partial(_frames, kind=kind.name), knobs={"depth": len(MEDUSA_TREE)}), chain
    if issubclass(kind, InBlocks | LookAhead):
        return (chain,)
    if issubclass(kind, Recurrent):
        grown = partial(row, drafter=partial(_dynamic, kind=kind.name), knobs=_GROWTH)
        if kind.name != "eagle":
            return grown(name=kind.name), chain
        static = row(name=kind.name, drafter=partial(_static, kind=kind.name), knobs={"depth": len(EAGLE_TREE)})
        return static, grown(name="eagle2", paper="arXiv 2406.16858"), chain
    if issubclass(kind, Early):
        # Their README's numbers; the parser's default of the threshold is 0.4. [code]
        knobs = {"length": 6, "threshold": 0.6}
        return row(name=kind.name, drafter=partial(_until_weak, kind=kind.name), knobs=knobs), chain
    if issubclass(kind, Coupled):
        grown = {"budget": 59, "branch": 10, "depth": 6}
        return row(name=kind.name, drafter=partial(_by_blocks, kind=kind.name), knobs=grown), chain
    if not issubclass(kind, Several):
        return ()  # it has methods of its own
    tree = partial(row, drafter=partial(_ranks, kind=kind.name), knobs={"depth": None})
    rule = Typical()
    numbers = tuple(each.name for each in fields(rule))
    typical = tree(name=f"{kind.name}_typical", accept=rule, lossless=False, rule_knobs=numbers)
    return tree(name=kind.name), chain, typical


# Medusa's tree, where theirs is one for speech that is not published, under the tolerance that is ours.
VADUSA = Method(
    name="vadusa",
    drafter=partial(_ranks, kind="medusa"),
    accept=Tolerance(),
    lossless=False,
    paper="arXiv 2410.21951",
    needs=(a_head("medusa"),),
    knobs={"depth": None},
    rule_knobs=("samples",),
)
HEADS = (*(method for name in kinds() for method in _rows(find_kind(name))), VADUSA)
