"""What a store holds for heads: the target's hidden states at every token, a column for each layer.

Heads of several kinds on one target and text so share a store (config.teacher_store), whichever layers each reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from adaspec_jax import data, models
from adaspec_jax.models.heads import features_of
from adaspec_jax.training import Batch

HIDDEN = "target_hidden_BTD"  # the field of `Batch`, and the column of labels alone
FEATURES = "target_features_BTF"  # the field of `Batch` that takes the layers side by side
LAST = -1


def column_of(layer: int) -> str:
    return f"target_layer_{'last' if layer == LAST else layer}"


def feature_columns(
    layers: Sequence[int], target: models.CausalLM, dtype: Any, *, last_is_there: bool
) -> tuple[dict[str, dict], Callable[[Batch], dict]]:
    """({column: its shape, type and extent}, batch -> {column: [B, T, D]}) of what heads on these layers are taught by.

    What labels are taught by is the last hidden state: where no head reads it, it is stored at labels alone, unless
    `last_is_there`, in a store that heads of other kinds share.
    """
    entry = {"shape": (target.config.hidden_size,), "dtype": dtype}
    columns = {column_of(layer): entry | {"every_token": True} for layer in layers}
    wanted, names = tuple(layers), list(columns)
    if LAST not in wanted:
        last = column_of(LAST) if last_is_there else HIDDEN
        wanted, names = (*wanted, LAST), [*names, last]
        columns[last] = entry | ({"every_token": True} if last_is_there else {})

    def values(batch: Batch) -> dict:
        return dict(zip(names, _at_layers(wanted, target, batch), strict=True))

    return columns, values


@partial(jax.jit, static_argnums=0)
def _at_layers(layers: tuple[int, ...], target: models.CausalLM, batch: Batch):
    side_by_side_BTF = features_of(target, batch.tokens_BT, layers, batch.segments_BT)
    return jax.numpy.split(side_by_side_BTF, len(layers), axis=-1)


class ForHeads:
    """A store as the stages of heads read it: the columns of their layers side by side, in one array."""

    def __init__(self, store: data.TokenStore, layers: Sequence[int]) -> None:
        self._store, self._fields = store, {FEATURES: [column_of(layer) for layer in layers]}
        if LAST not in layers:
            self._fields[HIDDEN] = [self._last]

    @property
    def _last(self) -> str:
        """The column of what labels are taught by."""
        return HIDDEN if HIDDEN in self._store.columns else column_of(LAST)

    def for_models(self) -> ForHeads:
        """The same as a stage of a model reads it: what labels are taught by, alone."""
        other = copy.copy(self)
        other._fields = {HIDDEN: [self._last]}
        return other

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._fields)

    @property
    def entries(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{field of a batch: (shape of an entry, its type)} of what `padded` gives."""
        entries = self._store.entries
        (size,), dtype = entries[self._last]
        return {field: ((size * len(names),), dtype) for field, names in self._fields.items()}

    def padded(self, rows: Sequence[int], length: int) -> dict[str, np.ndarray]:
        """{field of a batch: [B, length, ...]}, zero where there is no entry."""
        arrays = self._store.padded(rows, length)
        parts = {field: [arrays[name] for name in names] for field, names in self._fields.items()}
        return {field: each[0] if len(each) == 1 else np.concatenate(each, axis=-1) for field, each in parts.items()}
