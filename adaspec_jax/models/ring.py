"""The cache of a layer that attends to a window: the last tokens alone, in slots that are used again and again.

Slot s of the text lies at place s modulo the ring's size, the window and `ahead` more. So a token that is written past
what is settled never takes the place of one that any token of the settled text still sees, as long as no more than
`ahead` are written before the cache is rolled back: rejected guesses leave no trace. What one call brings beyond half
of that, a prompt, stays beside the ring as it is until `KVCache.roll_back` says how much of it is real.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

AHEAD = 128  # tokens that may be written and taken back, where nobody asks for more


def ring_size(window: int, slots: int, ahead: int = AHEAD) -> int:
    """Places of a layer's cache for a text of `slots` tokens; window 0: it attends to all."""
    return min(slots, window + ahead) if window else slots


def at_once(size: int, window: int) -> int:
    """How many tokens one call may write into the ring."""
    return (size - window) // 2


def held(lengths_B: Array, size: int) -> Array:
    """int32 [B, R]: the slot whose entry each place holds, of `lengths_B` tokens; below 0: it holds none."""
    last_B1 = lengths_B[:, None] - 1
    return last_B1 - jnp.mod(last_B1 - jnp.arange(size, dtype=jnp.int32)[None], size)


def written_around(buffer_BGRK: Array, new_BTGK: Array, start_B: Array) -> Array:
    """The ring with row b's T <= R new entries, of slots `start_b + arange(T)`."""
    size, count = buffer_BGRK.shape[2], new_BTGK.shape[1]
    new_BGTK = jnp.moveaxis(new_BTGK, 1, 2).astype(buffer_BGRK.dtype)

    @jax.vmap
    def write(buffer_GRK: Array, new_GTK: Array, start: Array) -> Array:
        places_T = jnp.mod(start + jnp.arange(count, dtype=start.dtype), size)
        return buffer_GRK.at[:, places_T].set(new_GTK, unique_indices=True)

    return write(buffer_BGRK, new_BGTK, start_B)


def settled(buffer_BGRK: Array, tail_BGTK: Array, begun_B: Array, lengths_B: Array) -> Array:
    """The ring of `lengths_B` tokens: those from slot `begun_b` on are in `tail_BGTK`, earlier ones in the ring."""
    slot_BR = held(lengths_B, buffer_BGRK.shape[2])
    from_tail_BR = slot_BR - begun_B[:, None]
    at_BR = jnp.clip(from_tail_BR, 0, tail_BGTK.shape[2] - 1)
    new_BGRK = jnp.take_along_axis(tail_BGTK, at_BR[:, None, :, None], axis=2)
    return jnp.where((from_tail_BR >= 0)[:, None, :, None], new_BGRK.astype(buffer_BGRK.dtype), buffer_BGRK)


def moved_around(buffer_BGRK: Array, start_B: Array, rows_BM: Array) -> Array:
    """Entries of slots `start_b + rows_BM[b, m]` moved to `start_b + m`."""
    size = buffer_BGRK.shape[2]

    @jax.vmap
    def moved(buffer_GRK: Array, start: Array, rows_M: Array) -> Array:
        from_M = jnp.mod(start + rows_M, size)
        to_M = jnp.mod(start + jnp.arange(len(rows_M), dtype=start.dtype), size)
        return buffer_GRK.at[:, to_M].set(buffer_GRK[:, from_M], unique_indices=True)

    return moved(buffer_BGRK, start_B, rows_BM)


def window_mask(mask_BTS: Array | None, slot_BX: Array, start_B: Array, positions_BT: Array, window: Any) -> Array:
    """bool [B, T, X]: which of the entries of these slots the T new tokens, of slots from `start_b` on, see.

    Without a mask those of no later slot than their own. Entries before the new ones are at the positions of their
    slots; the new ones at `positions_BT`, which a tree's branches share.
    """
    count = positions_BT.shape[1]
    new_BX = slot_BX - start_B[:, None]
    own_BX = jnp.take_along_axis(positions_BT, jnp.clip(new_BX, 0, count - 1), axis=1)
    position_BX = jnp.where(new_BX < 0, slot_BX, own_BX)
    if mask_BTS is None:
        sees_BTX = new_BX[:, None] <= jnp.arange(count, dtype=jnp.int32)[None, :, None]
    else:
        slots = mask_BTS.shape[2]
        mask_BTS = jnp.broadcast_to(mask_BTS, (*positions_BT.shape, slots))
        sees_BTX = jnp.take_along_axis(mask_BTS, jnp.clip(slot_BX, 0, slots - 1)[:, None], axis=2)
    back_BTX = positions_BT[:, :, None] - position_BX[:, None]
    return sees_BTX & (slot_BX >= 0)[:, None] & (back_BTX < window)
