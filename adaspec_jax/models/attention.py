"""Attention kernels: which one runs is a choice of speed, never of result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError

BLOCK = {"cpu": 64}  # queries at once: on CPUs the scores should stay in the cache
BLOCK_ELSEWHERE = 1024
_NEVER = -1e30  # a score no softmax sees, and finite, so that no infinities are subtracted


def causal_attention(
    query_BTHK: Array,
    key_BTGK: Array,
    value_BTGK: Array,
    *,
    kernel: str = "xla",
    block: int = 0,
    segments_BT: Array | None = None,
    window: int | Array = 0,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Array:
    """Every position attends to itself and what precedes it: [B, T, H, K] of H query heads over G <= H others.

    With `segments_BT`, int32, to no more of that than has its own number there; no mask [B, T, T] is made of them. With
    a `window`, to the last so many, itself included; 0: to all. `scale` multiplies scores (None: 1 / sqrt(K)), which
    `softcap` then bounds.

    "xla" goes over blocks of queries (`block`; 0 takes what suits the backend) and shows each the keys up to its end:
    about half the work and the scores of a masked square, and the backward pass computes scores again instead of
    keeping them. Scores and softmax are float32.
    "cudnn" is NVIDIA's fused kernel (bfloat16 or float16).
    """
    if kernel == "cudnn" and segments_BT is not None:
        raise ValueError('attention "cudnn" does not keep segments apart; use "xla"')
    if kernel == "cudnn":
        return jax.nn.dot_product_attention(
            query_BTHK, key_BTGK, value_BTGK, is_causal=True, scale=scale, implementation="cudnn"
        )
    batch, length, heads, features = query_BTHK.shape
    groups = key_BTGK.shape[2]
    # Heads that share keys side by side, and rows of one product: [B, G, T, H / G, K].
    query = jnp.moveaxis(query_BTHK.reshape(batch, length, groups, heads // groups, features), 2, 1)
    if scale is None:
        query *= jnp.asarray(features**-0.5, query.dtype)
    key_BGKT, value_BGTK = jnp.moveaxis(key_BTGK, 1, 3), jnp.moveaxis(value_BTGK, 1, 2)
    block = block or BLOCK.get(jax.default_backend(), BLOCK_ELSEWHERE)
    known = isinstance(window, int)
    mixed = []
    for start in range(0, length, block):
        seen = slice(max(start + 1 - window, 0) if known and window else 0, start + block)
        reach = window if not known or 0 < window < min(start + block, length) else None
        attend: Callable[..., Array] = partial(_attend, scale, softcap, reach)
        attend = attend if length <= block else jax.checkpoint(attend)
        segments = None if segments_BT is None else segments_BT[:, seen]
        mixed.append(attend(query[:, :, start : start + block], key_BGKT[..., seen], value_BGTK[:, :, seen], segments))
    return jnp.moveaxis(jnp.concatenate(mixed, axis=2), 1, 2).reshape(batch, length, heads, features)


def cached_attention(
    query_BTHK: Array,
    key_BGSK: Array,
    value_BGSK: Array,
    mask_BTS: Array,
    *,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Array:
    """Every position attends to the slots that the mask shows it: [B, T, H, K] of H query heads over G <= H others.

    Keys and values as a cache holds them: each head's slots lie together, and are the rows of the products. Scores and
    softmax are float32; `scale` and `softcap` as in `causal_attention`.
    """
    batch, count, heads, features = query_BTHK.shape
    groups = key_BGSK.shape[1]
    shared = heads // groups
    rows_BGXK = jnp.moveaxis(query_BTHK.reshape(batch, count, groups, shared, features), 2, 1)
    rows_BGXK = rows_BGXK.reshape(batch, groups, count * shared, features)
    if scale is None:
        rows_BGXK *= jnp.asarray(features**-0.5, rows_BGXK.dtype)
    scores_BGXS = jnp.einsum("bgxk,bgsk->bgxs", rows_BGXK, key_BGSK, preferred_element_type=jnp.float32)
    scores_BGXS = _scaled_and_capped(scores_BGXS, scale, softcap)
    mixed_BGXK = _mixed(scores_BGXS, value_BGSK, jnp.repeat(mask_BTS, shared, axis=1)[:, None])
    mixed_BGTRK = mixed_BGXK.reshape(batch, groups, count, shared, features)
    return jnp.moveaxis(mixed_BGTRK, 1, 2).reshape(batch, count, heads, features)


def capped(values: Array, cap: float) -> Array:
    """cap * tanh(values / cap); 0 caps nothing."""
    return jnp.tanh(values / cap) * cap if cap else values


def _scaled_and_capped(scores: Array, scale: float | None, softcap: float) -> Array:
    """Float32 scores times `scale`; None: their queries have been scaled."""
    return capped(scores if scale is None else scores * scale, softcap)


def _attend(
    scale: float | None,
    softcap: float,
    reach: int | Array | None,
    query_BGCRK: Array,
    key_BGKS: Array,
    value_BGSK: Array,
    segments_BS: Array | None,
) -> Array:
    """The last C of S positions attend, to their own segment and the last `reach` alone; R heads share a key."""
    batch, groups, count, shared, features = query_BGCRK.shape
    keys = key_BGKS.shape[-1]
    rows_BGXK = query_BGCRK.reshape(batch, groups, count * shared, features)
    scores_BGXS = jnp.matmul(rows_BGXK, key_BGKS, preferred_element_type=jnp.float32)
    scores_BGXS = _scaled_and_capped(scores_BGXS, scale, softcap)
    back_CS = np.arange(keys - count, keys)[:, None] - np.arange(keys)[None]
    sees = np.repeat(back_CS >= 0, shared, axis=0)[None, None]
    if reach is not None:
        sees &= np.repeat(back_CS, shared, axis=0)[None, None] < reach
    if segments_BS is not None:
        own_BX = jnp.repeat(segments_BS[:, keys - count :], shared, axis=1)
        sees &= own_BX[:, None, :, None] == segments_BS[:, None, None, :]
    return _mixed(scores_BGXS, value_BGSK, sees).reshape(batch, groups, count, shared, features)


def _mixed(scores_BGXS: Array, value_BGSK: Array, sees: Array | np.ndarray) -> Array:
    """Values weighted by the softmax of the scores that `sees` (broadcast to them) leaves."""
    scores_BGXS = jnp.where(sees, scores_BGXS, _NEVER)
    # The greatest score cancels out of the softmax, and so out of its gradient.
    weights_BGXS = jnp.exp(scores_BGXS - jax.lax.stop_gradient(jnp.max(scores_BGXS, axis=-1, keepdims=True)))
    mixed_BGXK = jnp.matmul(weights_BGXS.astype(value_BGSK.dtype), value_BGSK, preferred_element_type=jnp.float32)
    mixed_BGXK /= jnp.sum(weights_BGXS, axis=-1, keepdims=True)
    return mixed_BGXK.astype(value_BGSK.dtype)


def positions_within(segments_BT: Array) -> Array:
    """How many tokens of its own run of equal numbers precede each, [B, T] int32: positions that begin anew."""
    steps_BT = jnp.broadcast_to(jnp.arange(segments_BT.shape[1], dtype=jnp.int32), segments_BT.shape)
    begins_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return steps_BT - jax.lax.cummax(jnp.where(begins_BT, steps_BT, 0), axis=1)


def block_of(kernel: str, *, head_dim: int, dtype: Any, backend: str | None = None) -> int:
    """Queries at once, as it suits a backend (default: the one here); UserError where the kernel cannot run there."""
    backend = backend or jax.default_backend()
    if kernel == "cudnn":
        _check_cudnn(head_dim, dtype, backend)
    return BLOCK.get(backend, BLOCK_ELSEWHERE)


def _check_cudnn(head_dim: int, dtype: Any, backend: str) -> None:
    if backend != "gpu":
        raise UserError(f'attention "cudnn" needs an NVIDIA GPU, and this is {backend}; use "xla"')
    if jnp.dtype(dtype) == jnp.float32:
        raise UserError('attention "cudnn" computes in bfloat16; set dtype to bfloat16, or attention to "xla"')
    if head_dim % 8 or head_dim > 128:
        raise UserError(
            f'attention "cudnn" takes heads of up to 128 features, a multiple of 8, not {head_dim}; use "xla"'
        )
