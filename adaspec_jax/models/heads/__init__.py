"""Heads on a target's features, a file per kind: what the file's `KIND` says is all that the rest knows of it."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.sizes import Sizes
from adaspec_jax.models.heads.parts.texts import Places, features_of, following

__all__ = ["Head", "Kind", "Places", "Sizes", "Term"]
__all__ += ["features_of", "find_kind", "following", "kinds", "made_for", "new"]


@functools.cache
def kinds() -> tuple[str, ...]:
    """The names of all kinds: those of the files here."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))


def find_kind(name: str) -> type[Kind]:
    """The kind of that name; UserError otherwise."""
    if name not in kinds():
        raise UserError(f'heads of the kind "{name}" are not known here{did_you_mean(name, kinds())}')
    return importlib.import_module(f"{__name__}.{name}").KIND


def made_for(kind: str, knobs: Mapping[str, Any], sizes: Sizes) -> Kind:
    """The kind with these knobs for a target of these sizes; UserError for a knob that it lacks or cannot work with."""
    made = find_kind(kind)
    if unknown := [name for name in knobs if name not in made.knobs()]:
        raise UserError(f'a head of the kind "{kind}" has no "{unknown[0]}"{did_you_mean(unknown[0], made.knobs())}')
    try:
        return made(sizes=sizes, **knobs)
    except (ValueError, UserError) as error:
        raise UserError(f'a head of the kind "{kind}": {error}') from None


def new(kind: Kind, target: CausalLM, key: Array, counts_V: np.ndarray) -> Head:
    """An untrained head of this kind on this target; `counts_V`: how often each token is a label of the text."""
    params, tables = kind.init(key, target, counts_V)
    return Head(params, kind, tables)
