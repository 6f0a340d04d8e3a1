"""Attention kernels: which one runs is a choice of speed, never of result."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError

BLOCK = {"cpu": 128}  # queries at once: on CPUs the scores should stay near the cache
BLOCK_ELSEWHERE = 1024


def causal_attention(query_BTHK: Array, key_BTHK: Array, value_BTHK: Array, *, kernel: str = "xla") -> Array:
    """Every position attends to itself and what precedes it, [B, T, H, K]; keys and values may have fewer heads.

    "xla" goes over blocks of queries and shows each the keys up to its end: about half the work and the scores of a
    masked square, and the backward pass computes scores again instead of keeping them. "cudnn" is NVIDIA's fused kernel
    (bfloat16 or float16).
    """
    if kernel == "cudnn":
        return jax.nn.dot_product_attention(query_BTHK, key_BTHK, value_BTHK, is_causal=True, implementation="cudnn")
    length, block = query_BTHK.shape[1], BLOCK.get(jax.default_backend(), BLOCK_ELSEWHERE)
    if length <= block:
        return _attend(query_BTHK, key_BTHK, value_BTHK)
    mixed = []
    for start in range(0, length, block):
        end = min(start + block, length)
        mixed.append(jax.checkpoint(_attend)(query_BTHK[:, start:end], key_BTHK[:, :end], value_BTHK[:, :end]))
    return jnp.concatenate(mixed, axis=1)


def _attend(query_BCHK: Array, key_BSHK: Array, value_BSHK: Array) -> Array:
    """The last C of S positions attend."""
    queries, keys = query_BCHK.shape[1], key_BSHK.shape[1]
    mask_CS = np.arange(keys)[None] <= np.arange(keys - queries, keys)[:, None]
    return jax.nn.dot_product_attention(query_BCHK, key_BSHK, value_BSHK, mask=jnp.asarray(mask_CS)[None, None])


def check_kernel(kernel: str, *, head_dim: int, dtype) -> None:
    """UserError where "cudnn" cannot run here."""
    if kernel != "cudnn":
        return
    if (backend := jax.default_backend()) != "gpu":
        raise UserError(f'attention "cudnn" needs an NVIDIA GPU, and jax runs on {backend} here; use "xla"')
    if jnp.dtype(dtype) == jnp.float32:
        raise UserError('attention "cudnn" computes in bfloat16; set dtype to bfloat16, or attention to "xla"')
    if head_dim % 8 or head_dim > 128:
        raise UserError(
            f'attention "cudnn" takes heads of up to 128 features, a multiple of 8, not {head_dim}; use "xla"'
        )
