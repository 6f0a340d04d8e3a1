"""Methods in which the target drafts for itself with less to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter
from adaspec_jax.decoding.drafters.target.similarity import SimilarityDrafter
from adaspec_jax.decoding.drafters.target.skipping import SkippingDrafter
from adaspec_jax.decoding.drafters.target.sparse import AttendedDrafter, SparseDrafter
from adaspec_jax.decoding.drafters.target.swift import SwiftDrafter
from adaspec_jax.decoding.stopping import ConfidentEnough
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json
from adaspec_jax.methods.independent import halves
from adaspec_jax.methods.method import Given, Method, Need


def _num_layers(given: Given) -> int:
    model: Any = given.target  # one that can be run layer by layer says how many there are
    return model.config.num_layers


LAYERS = Need(
    "a target of at least three layers that can be run one by one",
    lambda given: hasattr(given.target, "run") and _num_layers(given) > 2,
)
KEYS = Need("a target whose cache can be selected from", lambda given: hasattr(given.target, "config"))


def every_other_layer(num_layers: int) -> tuple[int, ...]:
    """Both sublayers of layers 1, 3, 5, ..., the last layer kept: what SWIFT's code begins its search with."""
    return tuple(2 * layer + part for layer in range(1, num_layers - 1, 2) for part in (0, 1))


def layer_set(path: str | Path, num_layers: int) -> tuple[int, ...]:
    """The sublayers that a file {"attention": [...], "mlp": [...]} leaves out, by the numbers of their layers.

    It may also say "num_layers", and as "found" how it was found.

    UserError where it is not such a file, or names layers that the model has not.
    """
    said = read_json(path, mend="give a layer set")
    if set(said) - {"num_layers", "found"} != {"attention", "mlp"}:
        raise UserError(f'{path} is no layer set: it must say {{"attention": [...], "mlp": [...]}}')
    if said.get("num_layers", num_layers) != num_layers:
        raise UserError(f"{path} is for a model of {said['num_layers']} layers, and the target has {num_layers}")
    parts = said["attention"], said["mlp"]
    if not all(isinstance(part, list) and all(isinstance(n, int) for n in part) for part in parts):
        raise UserError(f"{path} is no layer set: layers are numbers")
    skipped = {2 * n for n in said["attention"]} | {2 * n + 1 for n in said["mlp"]}
    return checked(skipped, num_layers, str(path))


def as_layer_set(skipped: Sequence[int], num_layers: int) -> dict[str, Any]:
    """What such a file holds that leaves these sublayers out."""
    parts = {name: [n // 2 for n in sorted(skipped) if n % 2 == part] for part, name in enumerate(("attention", "mlp"))}
    return parts | {"num_layers": num_layers}


def checked(skipped: Sequence[int] | set[int], num_layers: int, name: str) -> tuple[int, ...]:
    """In order and each once; UserError for sublayers that are not there, and for all of them."""
    if outside := sorted(n for n in skipped if not 0 <= n < 2 * num_layers):
        layers = sorted({n // 2 for n in outside})
        raise UserError(f"{name} leaves out layers {layers}, and the target has layers 0 to {num_layers - 1}")
    if len(set(skipped)) == 2 * num_layers:
        raise UserError(f"{name} leaves out every sublayer: nothing is left to draft with")
    return tuple(sorted(set(skipped)))


def _draft_and_verify(
    given: Given, *, layers: str, skip: tuple[int, ...], length: int, threshold: float
) -> SkippingDrafter:
    count = _num_layers(given)
    if layers:
        skipped = layer_set(layers, count)
    else:
        skipped = checked(skip, count, "draft_and_verify.skip") or every_other_layer(count)
    stop = ConfidentEnough(threshold, limit=length)
    return SkippingDrafter(given.target, skipped, length, stop, widths=halves(length))


def _layerskip(given: Given, *, exit_layer: int | None, length: int) -> EarlyExitDrafter:
    count = _num_layers(given)
    exit_layer = max(count // 4, 1) if exit_layer is None else exit_layer
    if not 1 <= exit_layer < count:
        raise ValueError(f"exit_layer is {exit_layer}; the target has {count} layers, so give 1 to {count - 1}")
    return EarlyExitDrafter(given.target, exit_layer, length)


def _draft_on_the_fly(
    given: Given, *, first: int | None, last: int | None, length: int, threshold: float, **numbers: Any
) -> SimilarityDrafter:
    count = _num_layers(given)
    first = min(4, max(count // 4, 1)) if first is None else first
    last = min(2, max(count // 8, 1)) if last is None else last
    if first + last >= count:
        raise ValueError(f"first is {first} and last {last}; the target has {count} layers, and none is left between")
    stop = ConfidentEnough(threshold, limit=length)
    return SimilarityDrafter(given.target, first, last, length, stop, halves(length), **numbers)


DRAFT_AND_VERIFY = Method(
    name="draft_and_verify",
    drafter=_draft_and_verify,
    paper="arXiv 2309.08168",
    needs=(LAYERS,),
    # layers: a file; skip: sublayer numbers (attention of layer i: 2 i, its MLP: 2 i + 1); neither: every other layer.
    knobs={"layers": "", "skip": (), "length": 8, "threshold": 0.8},
)
LAYERSKIP = Method(
    name="layerskip",
    drafter=_layerskip,
    paper="arXiv 2404.16710",
    needs=(LAYERS,),
    knobs={"exit_layer": None, "length": 6},  # theirs for 32 layers is 8, so None is a quarter
)
SWIFT = Method(
    name="swift",
    drafter=lambda given, **knobs: SwiftDrafter(given.target, every_other_layer(_num_layers(given)), **knobs),
    paper="arXiv 2410.06916",
    needs=(LAYERS,),
    knobs={"length": 25, "siblings": 10, "window": 50, "share": 0.45, "threshold": 0.8, "enough": 0.93},
)
DRAFT_ON_THE_FLY = Method(
    name="draft_on_the_fly",
    drafter=_draft_on_the_fly,
    paper="arXiv 2410.01028",
    needs=(LAYERS,),
    # Numbers of the set are ours; first and last are 4 and 2 of deep targets. The others are draft_and_verify's.
    knobs={
        "similarity": 0.98,
        "most": 0.6,
        "every": 64,
        "first": None,
        "last": None,
        "length": 8,
        "threshold": 0.8,
    },
)


def _magicdec(given: Given, *, select: str, length: int, budget: int, sink: int, recent: int) -> Drafter:
    kinds: dict[str, Callable[[], Drafter]] = {
        "sink": lambda: SparseDrafter(given.target, length, budget, sink),
        "snapkv": lambda: AttendedDrafter(given.target, length, budget, recent),
    }
    if select not in kinds:
        raise ValueError(f'select is "{select}"; give {" or ".join(kinds)}')
    return kinds[select]()


MAGICDEC = Method(
    name="magicdec",
    drafter=_magicdec,
    paper="arXiv 2408.11049",
    needs=(KEYS,),
    knobs={"length": 3, "budget": 256, "sink": 16, "select": "sink", "recent": 64},  # sink and recent: ours
)
OWN_LAYERS = (DRAFT_AND_VERIFY, SWIFT, DRAFT_ON_THE_FLY, LAYERSKIP, MAGICDEC)
