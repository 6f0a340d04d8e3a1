"""Heads that guess a block in one pass, at slots which stand after a text: what such slots attend to.

A chain of slots belongs to a place of a text. It attends to the text up to there, and to slots of its own alone; in
decoding there is one chain, after the last committed token, and the text's keys and values are in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.attention import BLOCK, BLOCK_ELSEWHERE, positions_within
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.head import Head, Kind
from adaspec_jax.models.heads.parts.texts import Places
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache, write_at
from adaspec_jax.models.layer import Attention
from adaspec_jax.models.rotary import rotary_angles, rotate

_NEVER = -1e30
Pair = tuple[Array, Array]  # keys and values


def projected(config: DecoderConfig, params: Any, inputs_BXW: Array, positions_BX: Array) -> tuple[Array, Pair]:
    """Queries [B, X, H, K], and keys and values [B, X, Hkv, K], normed where the family does and turned."""
    c = config
    rotation = rotary_angles(positions_BX, size=c.rotary_dim, theta=c.rope_theta, scaling=c.rope_scaling)
    query, key, value = Attention(c).apply({"params": params}, inputs_BXW, method="projected")
    if c.qk_norm:
        query, key = layer.normed(c, params["q_norm"], query), layer.normed(c, params["k_norm"], key)
    query, key = (rotate(x, rotation, interleaved=False) for x in (query, key))
    return query, (key, value)


def attend(query_BNSHK: Array, text: Pair, own: Pair, sees_BNT: Array, among_SU: np.ndarray, block: int) -> Array:
    """What N chains of S queries attend to: keys [B, T, Hkv, K] of a text, and those [B, N, U, Hkv, K] of their own.

    `sees_BNT`: bool, how much of the text each chain sees; `among_SU`: bool, which of its own each query sees. About
    `block` queries at once (0: as suits the backend); the backward pass computes scores again.
    """
    batch, chains, slots, heads, features = query_BNSHK.shape
    groups = text[0].shape[2]
    query = query_BNSHK.reshape(batch, chains, slots, groups, heads // groups, features)
    query = query * jnp.asarray(features**-0.5, query.dtype)
    # More than in attention of whole texts: each piece is a part of the program of its own.
    block = max((block or 4 * BLOCK.get(jax.default_backend(), BLOCK_ELSEWHERE)) // slots, 1)

    def some(first: int) -> Array:
        part = slice(first, first + block)
        at_text = jnp.einsum("bnsgrk,btgk->bgrnst", query[:, part], text[0], preferred_element_type=jnp.float32)
        at_own = jnp.einsum("bnsgrk,bnugk->bgrnsu", query[:, part], own[0][:, part], preferred_element_type=jnp.float32)
        at_text = jnp.where(sees_BNT[:, None, None, part, None], at_text, _NEVER)
        at_own = jnp.where(jnp.asarray(among_SU)[None, None, None, None], at_own, _NEVER)
        weights = jax.nn.softmax(jnp.concatenate([at_text, at_own], axis=-1), axis=-1).astype(query.dtype)
        count = at_text.shape[-1]
        mixed = jnp.einsum("bgrnst,btgk->bnsgrk", weights[..., :count], text[1])
        return mixed + jnp.einsum("bgrnsu,bnugk->bnsgrk", weights[..., count:], own[1][:, part])

    some = jax.checkpoint(some, static_argnums=0) if chains > block else some
    mixed = jnp.concatenate([some(first) for first in range(0, chains, block)], axis=1)
    return mixed.reshape(batch, chains, slots, heads * features)


def added(config: DecoderConfig, params: Any, hidden: Array, mixed: Array) -> Array:
    """`hidden` with what attention and the MLP add to it."""
    hidden = hidden + Attention(config).apply({"params": params["attention"]}, mixed, method="outward")
    return layer.with_mlp(config, params, hidden)


def visible(places: Places, length: int, segments_BT: Array | None) -> Array:
    """bool [B, N, T]: the text up to each place, as far as it is the same."""
    sees_BNT = jnp.arange(length)[None, None] <= places.at_BN[:, :, None]
    if segments_BT is not None:
        sees_BNT &= places.take(segments_BT)[:, :, None] == segments_BT[:, None]
    return sees_BNT


def positions_of(tokens_BT: Array, segments_BT: Array | None) -> Array:
    """int32 [B, T]: where tokens stand in their texts."""
    if segments_BT is not None:
        return positions_within(segments_BT)
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None], tokens_BT.shape)


@dataclass(frozen=True, kw_only=True)
class InBlocks(Kind):
    """A kind that guesses at slots, and what decoding asks of it."""

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        places = Places.everywhere(tokens_BT)
        return self.guessed_at(head, target, tokens_BT, features_BTF, segments_BT, places)

    def cached(self, params: Any, target: CausalLM, features_BTF: Array, tokens_BT: Array, cache: KVCache):
        """(what `at_slots` reads of each position [B, T, ...], the cache T entries longer).

        Of hidden states of the target's, and of the tokens after them.
        """
        raise NotImplementedError

    def at_slots(self, head: Head, target: CausalLM, read_BF: Array, tokens_B: Array, cache: KVCache) -> Array:
        """Logits [B, guesses, V] of what follows the token, whose predecessor is the cache's last entry."""
        raise NotImplementedError

    def on_target(self, head: Head, target: CausalLM) -> BlocksOnTarget:
        return BlocksOnTarget(head, target.ends())


class BlocksOnTarget(WithTarget):
    """A head that guesses at slots beside the target whose ends it shares, for decoding."""

    def read(self, features_BTF: Array, tokens_BT: Array, cache: KVCache) -> tuple[Array, KVCache]:
        return self.head.config.cached(self.head.params, self.target, features_BTF, tokens_BT, cache)

    def guess(self, read_BF: Array, tokens_B: Array, cache: KVCache) -> Array:
        """Float32 logits [B, guesses, V] of what follows the tokens."""
        return self.head.config.at_slots(self.head, self.target, read_BF, tokens_B, cache)


def lengthened(cache: KVCache, pairs: list[Pair]) -> KVCache:
    """The cache with these keys and values [B, T, Hkv, K] of every layer after its entries."""
    start_B, count = jnp.asarray(cache.lengths_B), pairs[0][0].shape[1]
    keys, values = (
        tuple(write_at(old, new[i], start_B) for old, new in zip(buffers, pairs, strict=True))
        for i, buffers in enumerate((cache.keys, cache.values))
    )
    return replace(cache, keys=keys, values=values, lengths_B=start_B + jnp.int32(count))


def in_cache(cache: KVCache, number: int, dtype: Any) -> tuple[Pair, Array]:
    """((keys, values) [B, S, Hkv, K] of a layer, bool [B, 1, S]: which of them are entries)."""
    key, value = (jnp.moveaxis(x[number], 1, 2).astype(dtype) for x in (cache.keys, cache.values))
    return (key, value), (jnp.arange(cache.slots)[None] < jnp.asarray(cache.lengths_B)[:, None])[:, None]
