"""Prompts read by target and drafter: from their starts, or from where the turn before left them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.types import Context, Drafter, Model, asks_of


class Seen(NamedTuple):
    """What the target says at the tokens of one call."""

    logits_BMV: Array
    cache: Any
    hidden: tuple[Array, ...]

    def widened(self, columns: int) -> Seen:
        """With zeros at places that were not computed."""
        missing = columns - self.logits_BMV.shape[1]
        if not missing:
            return self
        logits_BMV, *hidden = (jnp.pad(x, ((0, 0), (0, missing), (0, 0))) for x in (self.logits_BMV, *self.hidden))
        return Seen(logits_BMV, self.cache, tuple(hidden))

    def likeliest(self, count: int) -> Array | None:
        """int32 [B, M, count], likeliest first; None for none."""
        if count == 1:
            return most_likely(self.logits_BMV)[..., None]
        return jax.lax.top_k(self.logits_BMV, count)[1].astype(jnp.int32) if count else None


@pytree("width")
class Kept:
    """What is left of a turn: target and drafter have read the first `lengths_B` tokens of these prompts before."""

    lengths_B: Array  # 0: nothing of this row
    target_cache: Any  # holds at least so many of a row's tokens, in as many slots as the rounds have
    draft_state: Any
    width: int  # static: no prompt is more than so many tokens longer


def see(target: Model, layers: tuple[float, ...], tokens_BT: Array, cache: Any, **where: Any) -> Seen:
    """The target's logits at these tokens, and its hidden states after `layers`."""
    if not layers and "first" not in where:
        return Seen(*target(tokens_BT, cache, **where), ())
    if layers == (-1,) and "first" not in where:
        hidden_BTD, cache = target.features(tokens_BT, cache, **where)
        return Seen(target.unembed(hidden_BTD), cache, (hidden_BTD,))
    hidden_BTD, cache, taps = target.run(tokens_BT, cache, taps=layers, **where)
    return Seen(target.unembed(hidden_BTD), cache, taps)


def prefill(target: Model, drafter: Drafter, prompt: Context, *, slots: int, kept: Kept | None) -> tuple[Context, Any]:
    """What `Rounds.begin` takes: the context that right-padded prompts make, and the drafter's state after them.

    With `kept`, the target reads only what follows it, and so does a drafter that has `extend`.
    """
    (batch, length), layers = prompt.tokens_BS.shape, asks_of(drafter).layers
    if kept is None:
        before_last_B = prompt.lengths_B - 2
        seen = see(target, layers, prompt.tokens_BS, target.init_cache(batch, slots))
    else:
        before_last_B = prompt.lengths_B - 2 - kept.lengths_B
        new_BT = tokens_from(prompt.tokens_BS, kept.lengths_B, kept.width)
        seen = see(target, layers, new_BT, kept.target_cache.roll_back(kept.lengths_B))
    cache = seen.cache.roll_back(prompt.lengths_B - 1)
    prompt = dataclasses.replace(prompt, hidden=seen.hidden, target_cache=cache)
    if kept is None or not hasattr(drafter, "extend"):
        draft_state = drafter.init(prompt, slots)
    else:
        draft_state = drafter.extend(kept.draft_state, prompt, kept.lengths_B, kept.width)
    # From now on at root and nodes; before the first round only the root's entry is real.
    before_last_B11 = jnp.maximum(before_last_B, 0)[:, None, None]
    root_B1D = (jnp.take_along_axis(hidden_BTD, before_last_B11, axis=1) for hidden_BTD in seen.hidden)
    hidden = tuple(jnp.repeat(root, drafter.num_nodes + 1, axis=1) for root in root_B1D)
    tokens_BS = jnp.pad(prompt.tokens_BS, ((0, 0), (0, slots - length)))
    return dataclasses.replace(prompt, tokens_BS=tokens_BS, hidden=hidden), draft_state


def tokens_from(tokens_BS: Array, start_B: Array, width: int) -> Array:
    """Row b's `width` tokens from column `start_b` on; past the last column, that one again."""
    index_BW = jnp.minimum(start_B[:, None] + jnp.arange(width)[None], tokens_BS.shape[1] - 1)
    return jnp.take_along_axis(tokens_BS, index_BW, axis=1)
