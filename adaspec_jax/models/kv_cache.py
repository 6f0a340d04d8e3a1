"""The key/value cache: an explicit argument and result of every model call, never a mutable collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@partial(jax.tree_util.register_dataclass, data_fields=["keys", "values", "lengths_B"], meta_fields=[])
@dataclass(frozen=True)
class KVCache:
    """Keys and values per layer, and how many tokens each row has written; slots past `lengths_B` are stale."""

    keys: tuple[Array, ...]  # per layer [B, Hkv, S, K], as the products of attention read them
    values: tuple[Array, ...]  # per layer [B, Hkv, S, K]
    lengths_B: Array  # int32, tokens written per row

    @classmethod
    def zeros(cls, batch_size: int, slots: int, *, layers: int, kv_heads: int, head_dim: int, dtype) -> KVCache:
        """An empty cache of `slots` tokens per row."""
        shape = (batch_size, kv_heads, slots, head_dim)
        return cls(
            keys=tuple(jnp.zeros(shape, dtype) for _ in range(layers)),
            values=tuple(jnp.zeros(shape, dtype) for _ in range(layers)),
            lengths_B=np.zeros((batch_size,), np.int32),
        )

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]

    @property
    def known_empty(self) -> bool:
        """Whether it is known, before anything runs, that no row holds a token: then a prompt attends to itself alone.

        So in the program that makes the cache; where the cache is an argument, its lengths are values like others.
        """
        return isinstance(self.lengths_B, np.ndarray) and not self.lengths_B.any()

    def roll_back(self, lengths_B: Array) -> KVCache:
        """The same cache with `lengths_B` tokens per row; what lies beyond is masked now and overwritten later."""
        return replace(self, lengths_B=jnp.asarray(lengths_B, jnp.int32))

    def keep_path(self, start_B: Array, rows_BM: Array) -> KVCache:
        """Entries of slots `start_b + rows_BM[b, m]` moved to `start_b + m` in every layer; lengths are untouched."""
        start_B = jnp.asarray(start_B)

        @jax.vmap
        def moved(buffer_GSK: Array, start: Array, rows_M: Array) -> Array:
            # "clip" because the default fills rows out of range with NaN, which leaks even through a masked slot.
            return _write_row(buffer_GSK, buffer_GSK.at[:, start + rows_M].get(mode="clip"), start)

        keys, values = (tuple(moved(x, start_B, rows_BM) for x in buffers) for buffers in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def select(self, slots: Array | Sequence[Array]) -> KVCache:
        """A cache of X slots per row, with the entries of these slots of every layer; its lengths are X.

        `slots` [B, Hkv, X], for all layers or one array for each: every head of keys may choose its own. Keys keep the
        positions they were rotated to, so that a call on the result must be told `positions_BT`. A slot past the end is
        the last one; roll the result back to where entries stop being real.
        """
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
