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
from adaspec_jax.errors import UserError


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


def takes_back(state: Any) -> int | None:
    """How many tokens every cache in `state` can be rolled back by; None: any number."""
    leaves = jax.tree.leaves(state, is_leaf=lambda leaf: hasattr(leaf, "ahead"))
    return min((leaf.ahead for leaf in leaves if getattr(leaf, "ahead", None) is not None), default=None)


def empty_cache(target: Any, batch: int, slots: int, nodes: int) -> Any:
    """A model's cache that can be rolled back by the guesses of a round, so many of them."""
    cache = target.init_cache(batch, slots)
    if (most := takes_back(cache)) is not None and most < (needed := 2 * (nodes + 1)):
        cache = target.init_cache(batch, slots, ahead=needed)
    return cache


def check_taken_back(state: Any, nodes: int) -> None:
    """UserError where so many guesses a round, twice, are more than a cache in `state` can be rolled back by."""
    if (most := takes_back(state)) is not None and 2 * (nodes + 1) > most:
        why = "too many where a draft's layers attend to windows"
        raise UserError(f"{nodes} guesses a round are {why}: at most {most // 2 - 1}")


def see(target: Model, layers: tuple[float, ...], tokens_BT: Array, cache: Any, **where: Any) -> Seen:
    """The target's logits at these tokens, and its hidden states after `layers`.

    Where it begins at a layer, those after the layer before are what enters there.
    """
    if not layers and "first" not in where:
        return Seen(*target(tokens_BT, cache, **where), ())
    if layers == (-1,) and "first" not in where:
        hidden_BTD, cache = target.features(tokens_BT, cache, **where)
        return Seen(target.unembed(hidden_BTD), cache, (hidden_BTD,))
    entered = where.get("first", 0) - 1
    taps = tuple(layer for layer in layers if entered < 0 or layer != entered)
    hidden_BTD, cache, tapped = target.run(tokens_BT, cache, taps=taps, **where)
    after: dict[float, Any] = dict(zip(taps, tapped, strict=True)) | {entered: where.get("hidden_BTD")}
    return Seen(target.unembed(hidden_BTD), cache, tuple(after[layer] for layer in layers))


def prefill(target: Model, drafter: Drafter, prompt: Context, *, slots: int, kept: Kept | None) -> tuple[Context, Any]:
    """What `Rounds.begin` takes: the context that right-padded prompts make, and the drafter's state after them.

    With `kept`, the target reads only what follows it, and so does a drafter that has `extend`.
    """
    (batch, length), layers = prompt.tokens_BS.shape, asks_of(drafter).layers
    if kept is None:
        before_last_B = prompt.lengths_B - 2
        seen = see(target, layers, prompt.tokens_BS, empty_cache(target, batch, slots, drafter.num_nodes))
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


def untaught(drafter: Drafter, batch: int) -> dict[str, Any]:
    """The fields of a `Context` that a verification of the drafter's guesses fills, before there was one."""
    zeros_B, nodes, likeliest = jnp.zeros((batch,), jnp.int32), drafter.num_nodes, asks_of(drafter).likeliest
    return {
        "accepted_B": zeros_B,
        "judged_B": zeros_B,
        "path_BN": jnp.zeros((batch, nodes), jnp.int32),
        "likeliest_BMK": jnp.zeros((batch, nodes + 1, likeliest), jnp.int32) if likeliest else None,
    }
