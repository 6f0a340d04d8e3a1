"""Which tokens the draft is trained on: rules for a set of tokens, and the sets they are applied to."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.errors import UserError, did_you_mean

# (gap_BT, mask_BT, fraction, key) -> mask_BT of the kept tokens
Rule = Callable[[Array, Array, float | Array, Array], Array]


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


def top(gap_BT: Array, mask_BT: Array, fraction: float | Array, key: Array | None = None) -> Array:
    """The largest gaps: AdaSPEC."""
    del key
    return select_top_fraction(gap_BT, mask_BT, fraction)


def bottom(gap_BT: Array, mask_BT: Array, fraction: float | Array, key: Array | None = None) -> Array:
    """The smallest gaps: the paper's ablation."""
    del key
    return select_top_fraction(-gap_BT, mask_BT, fraction)


def random(gap_BT: Array, mask_BT: Array, fraction: float | Array, key: Array) -> Array:
    """As many tokens, whatever their gaps: the control that tells selection from training on fewer tokens."""
    return select_top_fraction(jax.random.uniform(key, gap_BT.shape), mask_BT, fraction)


def rejected(refused_BT: Array, mask_BT: Array, fraction: float | Array, key: Array | None = None) -> Array:
    """The tokens whose guess greedy decoding would refuse now, however many there are: OSD (arXiv 2310.07177)."""
    del fraction, key
    return mask_BT.astype(bool) & (refused_BT > 0)


SELECTIONS: dict[str, Rule] = {rule.__name__: rule for rule in (top, bottom, random, rejected)}


def by_refusal(rule: Rule) -> bool:
    """Whether a rule is given, in place of the gap, 1 where the draft's likeliest token is not the target's, else 0."""
    return rule is rejected


def find_selection(name: str) -> Rule:
    """The selection rule of that name; UserError with the nearest name otherwise."""
    if name not in SELECTIONS:
        raise UserError(f'there is no selection "{name}"{did_you_mean(name, SELECTIONS)}')
    return SELECTIONS[name]


def by_segments(rule: Rule, segments_BT: Array) -> Rule:
    """The rule applied apart to each segment of each row, as they are numbered from 1 on: to each example of a pack."""
    in_rows = by_rows(rule)

    def apart(gap_BT: Array, mask_BT: Array, fraction: float | Array, key: Array) -> Array:
        def with_the_nth(n: Array, kept_BT: Array) -> Array:
            return kept_BT | in_rows(gap_BT, mask_BT & (segments_BT == n), fraction, jax.random.fold_in(key, n))

        return jax.lax.fori_loop(1, jnp.max(segments_BT) + 1, with_the_nth, jnp.zeros_like(mask_BT))

    return apart


def by_rows(rule: Rule, groups: int | None = None) -> Rule:
    """The rule applied apart to each of `groups` equal runs of rows, or to each row: a quantile of its own for each."""

    def apart(gap_BT: Array, mask_BT: Array, fraction: float | Array, key: Array) -> Array:
        batch, count = gap_BT.shape[0], groups or gap_BT.shape[0]
        if batch % count:
            raise ValueError(f"a batch of {batch} rows does not divide into {count} selection shards")
        split = (count, batch // count, -1)
        keys = jax.random.split(key, count)
        each = jax.vmap(rule, in_axes=(0, 0, None, 0))
        return each(gap_BT.reshape(split), mask_BT.reshape(split), fraction, keys).reshape(mask_BT.shape)

    return apart
