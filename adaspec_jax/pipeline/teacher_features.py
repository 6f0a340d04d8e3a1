"""What a store holds for heads: the target's hidden states at every token, a column for each layer.

Heads of several kinds on one target and text so share a store (config.teacher_store), whichever layers each reads.
"""

from __future__ import annotations

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
    layers: Sequence[int], target: models.CausalLM, dtype: Any
) -> tuple[dict[str, dict], Callable[[Batch], dict]]:
    """({column: its shape, type and extent}, batch -> {column: [B, T, D]}) of what heads on these layers are taught by.

    What labels are taught by is the last hidden state: where no head reads it, it is stored at labels alone.
    """
    entry = {"shape": (target.config.hidden_size,), "dtype": dtype}
    columns = {column_of(layer): entry | {"every_token": True} for layer in layers}
    wanted, names = tuple(layers), list(columns)
    if LAST not in wanted:
        wanted, names = (*wanted, LAST), [*names, HIDDEN]
        columns[HIDDEN] = entry

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
        self._store, self._names = store, [column_of(layer) for layer in layers]
        self._others = [name for name in store.entries if not name.startswith("target_layer_")]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self._others, FEATURES)

    @property
    def entries(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{field of a batch: (shape of an entry, its type)} of what `padded` gives."""
        entries = self._store.entries
        (size,), dtype = entries[self._names[0]]
        return {name: entries[name] for name in self._others} | {FEATURES: ((size * len(self._names),), dtype)}

    def without(self, column: str) -> ForHeads:
        """The same: what a selection is measured by is not stored for heads."""
        del column
        return self

    def padded(self, rows: Sequence[int], length: int) -> dict[str, np.ndarray]:
        """{field of a batch: [B, length, ...]}, zero where there is no entry."""
        arrays = self._store.padded(rows, length)
        parts = [arrays.pop(name) for name in self._names]
        kept = {name: arrays[name] for name in self._others}
        return kept | {FEATURES: parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)}
