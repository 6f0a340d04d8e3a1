"""Rows that hold masks behind their tokens: what a draft model that guesses at masks reads in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.training.objectives.batch import Batch
from adaspec_jax.training.objectives.labels import labels_of


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How many tokens are guessed in one pass, and what is made of them in training.

    `keep` and `least`: of a row's chains, max(keep^d, least) go on to depth d (PARD's conditional drop, arXiv
    2504.18583: 0.7 and 0.2; PARD-2's code has 0.1). `tokens` and `laws`: weights of the cross entropy of the text's own
    tokens (1 and 0: PARD) and of the divergence from the target (0.1 and 1: PARD-2, 2605.08632). `confident`: a guess
    counts as much as the target thinks likely of the tokens between its chain's beginning and itself (PARD-2).

    `whole`: the masks of a chain see each other both ways, as in SpecDec's decoder without a causal mask (2203.16487);
    there are always `guesses` - 1 of them, and `keep` is the share of chains that have any. `reveal`: glancing, the
    share of a chain's wrong guesses in whose number its own tokens stand in place of masks, at the first update, and at
    the last one `reveal_last` [both: SpecDec's code]; 0: none do.

    Raises:
      ValueError: values that cannot be.
    """

    guesses: int = 8
    keep: float = 0.7
    least: float = 0.2
    tokens: float = 0.1
    laws: float = 1.0
    confident: bool = True
    whole: bool = False
    reveal: float = 0.0
    reveal_last: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.guesses <= 64:
            raise ValueError(f"guesses is {self.guesses}; it must be from 1 to 64")
        for name in ("keep", "least"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1")
        if min(self.tokens, self.laws) < 0 or not self.tokens + self.laws:
            raise ValueError(f"tokens is {self.tokens} and laws {self.laws}; both are weights, and one must be above 0")
        for name in ("reveal", "reveal_last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.whole and self.guesses == 1:
            raise ValueError("guesses is 1, and a block has at least one mask: it must be from 2 to 64")

    def share(self, depth: int) -> float:
        """Of chains that have a guess so deep."""
        if self.whole:
            return self.keep if depth else 1.0
        return max(self.keep**depth, self.least) if depth else 1.0

    def lengthened(self, length: int) -> int:
        """How many tokens a row of `length` becomes."""
        return sum(_count(self, depth, length) for depth in range(self.guesses))

    @property
    def block(self) -> int:
        """How many tokens a round guesses, where it cannot guess another number; 0: it can."""
        return self.guesses if self.whole else 0


# By `draft.kind`. SpecDec's tokens alone, as in its code; which share of a row's chains is trained on is ours.
MASKS = {
    "pard": Masks(),
    "specdec": Masks(keep=0.25, tokens=1.0, laws=0.0, confident=False, whole=True, reveal=0.5, reveal_last=0.3),
}


def _count(masks: Masks, depth: int, length: int) -> int:
    """Chains of a row of `length` for which there is room at this depth."""
    return int(np.ceil(masks.share(depth) * length))


class Slots(NamedTuple):
    """A batch whose rows hold masks behind their tokens. A slot guesses the token after its place in the text."""

    tokens_BX: Array
    begins_BX: Array  # where its chain begins
    places_BX: Array  # in the text: that, and its depth
    label_BX: Array  # bool: it guesses a label, and its chain goes so far
    depth_X: np.ndarray
    chain_X: np.ndarray  # which of the chains behind the text it belongs to; -1: the text's own tokens

    def take(self, array_BT: Array) -> Array:
        """[B, X, ...] of what is known at every token."""
        index = jnp.minimum(self.places_BX, array_BT.shape[1] - 1)
        return jnp.take_along_axis(array_BT, index.reshape(*index.shape, *(1,) * (array_BT.ndim - 2)), axis=1)


def slots_of(batch: Batch, masks: Masks, mask_token: int, key: Array) -> Slots:
    """Chains begin where the next token is a label: where decoding may begin one. They end with a row's labels.

    Which of a row's chains go on is drawn by `key`, and one that goes on to a depth has been at all before it.
    """
    tokens_BT = jnp.asarray(batch.tokens_BT)
    _, mask_BT = labels_of(batch)
    rows, length = tokens_BT.shape
    every_BT = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
    order_BT = jnp.argsort(jnp.where(mask_BT, jax.random.uniform(key, mask_BT.shape), 2.0), axis=1)
    number_B1 = jnp.sum(mask_BT, axis=1, keepdims=True)
    parts, reached_BT = [(tokens_BT, every_BT, every_BT, mask_BT)], mask_BT
    depth, chain = [np.zeros(length, np.int32)], [np.full(length, -1)]
    for d in range(1, masks.guesses):
        count = _count(masks, d, length)
        begins_BC = order_BT[:, :count]
        reached_BT &= jnp.roll(mask_BT, -d, axis=1) & (every_BT < length - d)
        if batch.segments_BT is not None:
            reached_BT &= jnp.roll(batch.segments_BT, -d, axis=1) == batch.segments_BT
        goes_BC = jnp.arange(count)[None] < jnp.ceil(masks.share(d) * number_B1)
        label_BC = goes_BC & jnp.take_along_axis(reached_BT, begins_BC, axis=1)
        parts.append((jnp.full_like(begins_BC, mask_token), begins_BC, begins_BC + d, label_BC))
        depth.append(np.full(count, d, np.int32))
        chain.append(np.arange(count))
    tokens_BX, begins_BX, places_BX, label_BX = (jnp.concatenate(x, axis=1) for x in zip(*parts, strict=True))
    return Slots(tokens_BX, begins_BX, places_BX, label_BX, np.concatenate(depth), np.concatenate(chain))


def seen_by(slots: Slots, begins_BX: Array, segments_BT: Array | None, length: int, *, whole: bool = False) -> Array:
    """bool [B, X, X]: whom each slot attends to."""
    own_X, depth_X = slots.chain_X, slots.depth_X
    text_BXT = jnp.arange(length)[None, None] <= begins_BX[:, :, None]
    if segments_BT is not None:
        own_BX = jnp.take_along_axis(segments_BT, begins_BX, axis=1)
        text_BXT &= own_BX[:, :, None] == segments_BT[:, None]
    same_XY = own_X[:, None] == own_X[None, length:]
    if not whole:
        same_XY &= depth_X[:, None] >= depth_X[None, length:]
    masks_BXY = jnp.broadcast_to(jnp.asarray(same_XY)[None], (len(begins_BX), *same_XY.shape))
    return jnp.concatenate([text_BXT, masks_BXY], axis=2)
