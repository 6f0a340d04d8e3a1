"""Which tokens the draft is trained on."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def select_top_fraction(gap_BT: Array, mask_BT: Array, fraction: float | Array) -> Array:
    """The valid tokens whose gap reaches the (1 - fraction) quantile of all valid gaps, as a bool mask [B, T].

    AdaSPEC's rule (arXiv 2510.19779, section 3.2) as its released code computes it: the quantile interpolates linearly
    between order statistics of the valid tokens only, and `gap >= threshold` is kept, so ties at the threshold stay.
    `fraction` 1 keeps every valid token. An empty mask selects nothing.

    Args:
      gap_BT: any float type; divergence of the draft minus that of the reference.
      mask_BT: bool; supervised positions.
      fraction: the share to keep, in (0, 1].
    """
    gap_BT = gap_BT.astype(jnp.float32)
    mask_BT = mask_BT.astype(bool)
    sorted_X = jnp.sort(jnp.where(mask_BT, gap_BT, jnp.inf).reshape(-1))  # valid gaps first, in order
    last = jnp.maximum(jnp.sum(mask_BT) - 1, 0)
    # 1 - fraction in the host's double precision: rounded to float32 first, it can miss an order statistic.
    position = jnp.asarray(1 - fraction, jnp.float32) * last
    below = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, last)
    above = jnp.minimum(below + 1, last)
    weight = position - below
    threshold = sorted_X[below] + weight * (sorted_X[above] - sorted_X[below])
    return mask_BT & (gap_BT >= jnp.where(jnp.sum(mask_BT) > 0, threshold, jnp.inf))
