"""Glancing (arXiv 2008.07905), as SpecDec trains: masks that hold what stands there, the more the more are wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.training.objectives.mask_slots import Slots


def glanced(slots: Slots, tokens_BT: Array, right_BX: Array, share: Array | float, key: Array) -> Slots:
    """The same slots, some of whose masks have become the text's own tokens, and whose guesses of those do not count.

    `right_BX`: bool, whether a slot guesses its label when nothing is revealed. Of a chain floor(`share` times its
    wrong guesses at masks) tokens are revealed, any of those that a mask stands for [SpecDec's code; rounding ours].
    What the text's own token guesses before the first mask counts in any case: it sees no mask.
    """
    depths, chains = int(slots.depth_X.max()), int(slots.chain_X.max()) + 1
    own = int((slots.chain_X < 0).sum())

    def by_depth(array_BX: Array) -> Array:
        """[B, depth - 1, chain] of the masks."""
        return array_BX[:, own:].reshape(len(array_BX), depths, chains)

    labels_BDC, begins_BC = by_depth(slots.label_BX), slots.begins_BX[:, own : own + chains]
    first_BC = jnp.take_along_axis(slots.label_BX[:, :own], begins_BC, axis=1) & labels_BDC.any(axis=1)
    holds_BDC = jnp.concatenate([first_BC[:, None], labels_BDC[:, :-1]], axis=1)  # a mask stands for a label
    wrong_BC = jnp.sum(labels_BDC & ~by_depth(right_BX), axis=1)
    count_BC = jnp.floor(share * wrong_BC + 1e-6)
    random_BDC = jnp.where(holds_BDC, jax.random.uniform(key, holds_BDC.shape), 2.0)
    rank_BDC = jnp.argsort(jnp.argsort(random_BDC, axis=1), axis=1)
    shown_BDC = holds_BDC & (rank_BDC < count_BC[:, None])
    told_BDC = jnp.pad(shown_BDC[:, 1:], ((0, 0), (0, 1), (0, 0)))  # the guess before it is told what it should say
    shown_BM, told_BM = (x.reshape(len(x), -1) for x in (shown_BDC, told_BDC))
    masks_BM = jnp.where(shown_BM, slots.take(tokens_BT)[:, own:], slots.tokens_BX[:, own:])
    return slots._replace(
        tokens_BX=jnp.concatenate([slots.tokens_BX[:, :own], masks_BM], axis=1),
        label_BX=jnp.concatenate([slots.label_BX[:, :own], slots.label_BX[:, own:] & ~told_BM], axis=1),
    )
