"""A draft model's cache: after the prompt, and brought up to what was committed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.conditional import changed_if
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.types import Context, Model


class Read(NamedTuple):
    """What a draft model makes of the last committed token."""

    logits_BV: Array
    hidden_BD: Any  # an Array, where it is known
    cache: Any


def read_prompt(model: Model, prompt: Context, slots: int) -> Any:
    """The model's cache after a right-padded prompt."""
    _, cache = model.features(prompt.tokens_BS, model.init_cache(prompt.tokens_BS.shape[0], slots))
    return cache.roll_back(prompt.lengths_B)


def read_on(model: Model, cache: Any, prompt: Context, kept_B: Array, width: int, *, window: int) -> Any:
    """`read_prompt` from the cache of the turn before, of whose tokens the prompt has the first `kept_B` still.

    `window` is what `reread` is given: that many of the last tokens may be wrong here, of which the target keeps all
    but one. No prompt has more than `width` tokens beyond `kept_B`.
    """
    start_B = jnp.maximum(kept_B - (window - 1), 0)
    tokens_BW = tokens_from(prompt.tokens_BS, start_B, width + window - 1)
    _, cache = model.features(tokens_BW, cache.roll_back(start_B))
    return cache.roll_back(prompt.lengths_B)


def catch_up(model: Model, cache: Any, tokens_BS: Array, until_B: Array, *, stride: int) -> Any:
    """The cache of rows of which it holds the first `cache.lengths_B` tokens, holding at least `until_B` of each.

    It reads `stride` tokens at a time, and nothing where no row lacks any.
    """
    until_B = jnp.maximum(until_B, 0)

    def read(cache: Any) -> Any:
        start_B = jnp.minimum(cache.lengths_B, until_B)
        _, after = model.features(tokens_from(tokens_BS, start_B, stride), cache.roll_back(start_B))
        return after.roll_back(jnp.minimum(start_B + stride, until_B))

    return jax.lax.while_loop(lambda cache: jnp.any(cache.lengths_B < until_B), read, cache)


def reread(model: Model, cache: Any, context: Context, *, window: int) -> Read:
    """The model after the last committed token, its cache rolled back to exactly the committed tokens.

    The last `window` committed tokens are read (again); the cache must be right for all tokens before them, so that
    `window` is `context.behind` or more: two is right directly under the engine, and too few inside another round.
    """
    start_B = jnp.maximum(context.lengths_B - window, 0)
    hidden_BWD, cache = model.features(tokens_from(context.tokens_BS, start_B, window), cache.roll_back(start_B))
    last_B11 = (context.lengths_B - 1 - start_B)[:, None, None]
    last_BD = jnp.take_along_axis(hidden_BWD, last_B11, axis=1)[:, 0]  # one row is all the output matrix has to see
    return Read(model.unembed(last_BD), last_BD, cache.roll_back(context.lengths_B))


def caught_up(model: Model, cache: Any, context: Context, read_BS: Array) -> Any:
    """The model's cache with every committed token but the last, as a target's is: at most `behind` - 1 are read.

    `read_BS`: the tokens that the cache holds, as far as it holds any. Nothing is read where no row lacks a token.
    """
    same_BS = read_BS[:, : context.tokens_BS.shape[1]] == context.tokens_BS
    right_B = jnp.minimum(jnp.sum(jnp.cumprod(same_BS, axis=1), axis=1), cache.lengths_B)
    start_B = jnp.maximum(context.lengths_B - context.behind, 0)
    tokens_BW = tokens_from(context.tokens_BS, start_B, context.behind - 1)

    def read(cache: Any) -> Any:
        return model.features(tokens_BW, cache.roll_back(start_B))[1]

    return changed_if(jnp.any(right_B < context.lengths_B - 1), read, cache)
