"""The key/value cache: an explicit argument and result of every model call, never a mutable collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.models.ring import AHEAD, moved_around, ring_size, settled

Tail = tuple[Array, Array]  # keys and values [B, Hkv, T, K]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["keys", "values", "lengths_B", "tails", "begun_B", "counted"],
    meta_fields=["windows"],
)
@dataclass(frozen=True)
class KVCache:
    """Keys and values per layer, and how many tokens each row has written; slots past `lengths_B` are stale.

    A layer that attends to a window has a ring of its last tokens in place of all S; see `ring.py`. What a long call
    wrote there lies in `tails`, from slot `begun_B` on, until `roll_back` says how much of it is real.
    """

    keys: tuple[Array, ...]  # per layer [B, Hkv, S, K], as the products of attention read them
    values: tuple[Array, ...]  # per layer [B, Hkv, S, K]
    lengths_B: Any  # an Array of int32, tokens written per row; NumPy's where it is known that there are none
    tails: tuple[Tail | None, ...] = ()
    begun_B: Any = None  # an Array where there are tails
    counted: Array | None = None  # [B, S, 0]: the slots of a text, where every layer has a ring
    windows: tuple[int, ...] = ()  # per layer; 0, and (): it attends to all

    @classmethod
    def zeros(
        cls,
        batch_size: int,
        slots: int,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        dtype: Any,
        windows: tuple[int, ...] = (),
        ahead: int = AHEAD,
    ) -> KVCache:
        """An empty cache of `slots` tokens per row, of which rings let `ahead` be taken back."""
        sizes = [ring_size(window, slots, ahead) for window in windows or (0,) * layers]
        shapes = [(batch_size, kv_heads, size, head_dim) for size in sizes]
        return cls(
            keys=tuple(jnp.zeros(shape, dtype) for shape in shapes),
            values=tuple(jnp.zeros(shape, dtype) for shape in shapes),
            lengths_B=np.zeros((batch_size,), np.int32),
            counted=jnp.zeros((batch_size, slots, 0), dtype) if windows and all(windows) else None,
            windows=windows,
        )

    @property
    def slots(self) -> int:
        """The most tokens that a row may come to hold."""
        return max(x.shape[2] for x in self.keys) if self.counted is None else self.counted.shape[1]

    @property
    def ahead(self) -> int | None:
        """How many tokens may be written and taken back at once; None: any number."""
        sizes = zip((x.shape[2] for x in self.keys), self.windows or (0,) * len(self.keys), strict=True)
        return min((size - window for size, window in sizes if size < self.slots), default=None)

    @property
    def known_empty(self) -> bool:
        """Whether it is known, before anything runs, that no row holds a token: then a prompt attends to itself alone.

        So in the program that makes the cache; where the cache is an argument, its lengths are values like others.
        """
        return isinstance(self.lengths_B, np.ndarray) and not self.lengths_B.any()

    def roll_back(self, lengths_B: Array) -> KVCache:
        """The same cache with `lengths_B` tokens per row; what lies beyond is masked now and overwritten later.

        Where a layer has a ring, to no less than `ahead` tokens before what was ever written, or to none.
        """
        lengths_B = jnp.asarray(lengths_B, jnp.int32)
        if not self.tails:
            return replace(self, lengths_B=lengths_B)

        def buffers(part: int, old: tuple[Array, ...]) -> tuple[Array, ...]:
            both = zip(old, self.tails, strict=True)
            return tuple(x if tail is None else settled(x, tail[part], self.begun_B, lengths_B) for x, tail in both)

        keys, values = buffers(0, self.keys), buffers(1, self.values)
        return replace(self, keys=keys, values=values, lengths_B=lengths_B, tails=(), begun_B=None)

    def keep_path(self, start_B: Array, rows_BM: Array) -> KVCache:
        """Entries of slots `start_b + rows_BM[b, m]` moved to `start_b + m` in every layer; lengths are untouched."""
        start_B = jnp.asarray(start_B)
        if self.tails:
            raise ValueError(
                f"a ring takes back {self.ahead} tokens: too many were written at once to keep some of them"
            )
        slots = self.slots

        @jax.vmap
        def moved(buffer_GSK: Array, start: Array, rows_M: Array) -> Array:
            # "clip" because the default fills rows out of range with NaN, which leaks even through a masked slot.
            return _write_row(buffer_GSK, buffer_GSK.at[:, start + rows_M].get(mode="clip"), start)

        move = lambda x: (moved if x.shape[2] == slots else moved_around)(x, start_B, rows_BM)  # noqa: E731
        keys, values = (tuple(map(move, buffers)) for buffers in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def select(self, slots: Array | Sequence[Array]) -> KVCache:
        """A cache of X slots per row, with the entries of these slots of every layer; its lengths are X.

        `slots` [B, Hkv, X], for all layers or one array for each: every head of keys may choose its own. Keys keep the
        positions they were rotated to, so that a call on the result must be told `positions_BT`. A slot past the end is
        the last one; roll the result back to where entries stop being real.

        Raises:
          UserError: a layer has no entries but those of its window.
        """
        if any(self.windows):
            raise UserError("cached tokens cannot be chosen where layers attend to windows: they hold few as it is")
        per_layer = [slots] * len(self.keys) if isinstance(slots, jax.Array | np.ndarray) else list(slots)

        def chosen(buffer_BGSK: Array, slots_BGX: Array) -> Array:
            return jnp.take_along_axis(buffer_BGSK, jnp.clip(slots_BGX, 0, self.slots - 1)[..., None], axis=2)

        keys, values = (
            tuple(chosen(x, at) for x, at in zip(buffers, per_layer, strict=True))
            for buffers in (self.keys, self.values)
        )
        batch, _, count = per_layer[0].shape
        return KVCache(keys, values, jnp.full((batch,), count, jnp.int32))


def write_at(buffer_BGSK: Array, new_BTGK: Array, start_B: Array | None) -> Array:
    """`buffer_BGSK` with row b's T new entries at slots `start_b + arange(T)`; slots past the end are dropped.

    `start_B` None: the buffer is known to be empty, and they are its first.
    """
    new_BGTK = jnp.moveaxis(new_BTGK, 1, 2).astype(buffer_BGSK.dtype)
    if start_B is None:
        # Nothing is written over. Of scatters into buffers that are all the same zeros, XLA for TPUs makes a copy of
        # the zeros for each, and moves every buffer once more (jax 0.10.2; `benchmarks/decoding_programs.py`).
        slots = buffer_BGSK.shape[2]
        missing = max(slots - new_BGTK.shape[2], 0)
        return jnp.pad(new_BGTK[:, :, :slots], ((0, 0), (0, 0), (0, missing), (0, 0)))
    arguments = (buffer_BGSK, new_BGTK, start_B)
    write = jax.vmap(_write_row)
    if new_BTGK.shape[1] > 1:
        return write(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=jax.vmap(_write_one), default=write)


def _write_row(buffer_GSK: Array, new_GTK: Array, start: Array) -> Array:
    # A scatter, because dynamic_update_slice would shift a write that overruns the end onto valid slots; mapped over
    # the batch, so that a batch sharded over devices stays where it is.
    return _scattered(buffer_GSK, new_GTK, start + jnp.arange(new_GTK.shape[1], dtype=start.dtype))


def _write_one(buffer_GSK: Array, new_G1K: Array, slot: Array) -> Array:
    # With a second entry that is dropped: of a scatter of one index XLA makes updates of slices, which in a batch of
    # one row copy the whole cache at every step (CPU, jax 0.10.2).
    nowhere = jnp.iinfo(slot.dtype).max
    return _scattered(buffer_GSK, jnp.repeat(new_G1K, 2, axis=1), jnp.stack([slot, jnp.full_like(slot, nowhere)]))


def _scattered(buffer_GSK: Array, new_GTK: Array, slots_T: Array) -> Array:
    return buffer_GSK.at[:, slots_T].set(new_GTK, mode="drop", unique_indices=True, indices_are_sorted=True)
