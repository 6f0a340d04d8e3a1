"""The one decoder layer that heads on features have: Llama's, whatever the target's family is.

In training it runs several steps over whole texts, each on what the step before gave, without a mask [T, steps * T]:
EAGLE-3's training-time test (Li et al. 2025, arXiv 2503.01840). In decoding it reads tokens into a cache of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.attention import (
    BLOCK,
    BLOCK_ELSEWHERE,
    cached_attention,
    causal_attention,
    positions_within,
)
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts.head import Kind
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.layer import MLP, Attention, Where, norm_of
from adaspec_jax.models.rotary import rotary_angles, rotate

_NEVER = -1e30


def layer_config(kind: Kind) -> DecoderConfig:
    """Llama's layer in the target's sizes; UserError where those are of none."""
    sizes = kind.sizes
    return DecoderConfig(
        model_type="llama",
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_layers=1,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim,
        norm="rms",
        norm_eps=sizes.norm_eps,
        mlp="gated",
        activation="silu",
        rotary_dim=sizes.head_dim,
        rope_theta=sizes.rope_theta,
        rope_scaling=sizes.rope_scaling,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        max_positions=sizes.max_positions,
        initializer_range=sizes.initializer_range,
        attention=kind.attention,
        attention_block=kind.attention_block,
    )


def init_layer(config: DecoderConfig, key: Array, width: int) -> dict[str, Any]:
    """Parameters of a layer whose attention reads `width` features: attention, mlp_norm, mlp."""
    keys = jax.random.split(key, 2)
    wide_11W, hidden_11D = jnp.zeros((1, 1, width)), jnp.zeros((1, 1, config.hidden_size))
    rotation = rotary_angles(jnp.zeros((1, 1), jnp.int32), size=config.rotary_dim, theta=config.rope_theta)
    where = Where(rotation, None, jnp.zeros((1,), jnp.int32))
    return {
        "attention": Attention(config).init(keys[0], wide_11W, where)["params"],
        "mlp": MLP(config).init(keys[1], hidden_11D)["params"],
        "mlp_norm": unit_norm(config.hidden_size),
    }


def unit_norm(size: int) -> dict[str, Array]:
    return {"scale": jnp.ones((size,), jnp.float32)}


def normed(config: DecoderConfig, params: dict[str, Array], hidden: Array) -> Array:
    """RMSNorm of the last axis."""
    made: Any = norm_of(config).apply({"params": params}, hidden)
    return made


class Unrolled:
    """The layer over whole texts, one step after another; step i guesses one token further on than step i - 1.

    A query at position t of step i sees the keys of step 0 up to t, and of each later step the one at t itself: what
    it would see in decoding, where the steps' own outputs follow the target's features. Its rotary position is t + i.
    The kernel that the config names is step 0's; later steps have "xla", because of the keys of their own.
    """

    def __init__(self, config: DecoderConfig, params: dict, segments_BT: Array | None, *, rematerialise: bool) -> None:
        self._config, self._params, self._segments_BT = config, params, segments_BT
        self._remakes = rematerialise
        self._first: tuple[Array, Array] | None = None
        self._own: list[tuple[Array, Array]] = []

    def step(self, inputs_BTW: Array, residual_BTD: Array) -> Array:
        """The layer's output [B, T, D]: attention reads `inputs_BTW`, and both sublayers add to the residual."""
        count = 0 if self._first is None else 1 + len(self._own)
        run = partial(_unrolled_step, self._config, count)
        run = jax.checkpoint(run) if self._remakes else run
        hidden_BTD, own = run(self._params, inputs_BTW, residual_BTD, self._first, tuple(self._own), self._segments_BT)
        if self._first is None:
            self._first = own
        else:
            self._own.append(own)
        return hidden_BTD


def _unrolled_step(config: DecoderConfig, count: int, params, inputs_BTW, residual_BTD, first, own, segments_BT):
    """(hidden_BTD, this step's keys and values [B, T, Hkv, K])."""
    batch, length, _ = inputs_BTW.shape
    positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    if segments_BT is not None:
        positions_BT = positions_within(segments_BT)
    rotation = rotary_angles(
        positions_BT + count, size=config.rotary_dim, theta=config.rope_theta, scaling=config.rope_scaling
    )
    attention = {"params": params["attention"]}
    query_BTHK, key_BTGK, value_BTGK = Attention(config).apply(attention, inputs_BTW, method="projected")
    query_BTHK, key_BTGK = (rotate(x, rotation, interleaved=False) for x in (query_BTHK, key_BTGK))
    made = key_BTGK, value_BTGK
    if first is None:
        how = {"kernel": config.attention, "block": config.attention_block, "segments_BT": segments_BT}
        mixed_BTHK = causal_attention(query_BTHK, *made, **how)
    else:
        mixed_BTHK = _attend_with_own(query_BTHK, first, (*own, made), segments_BT, config.attention_block)
    attended_BTD = Attention(config).apply(attention, mixed_BTHK.reshape(batch, length, -1), method="outward")
    return with_mlp(config, params, residual_BTD + attended_BTD), made


def with_mlp(config: DecoderConfig, params, hidden_BTD: Array) -> Array:
    """With what the MLP adds, where the layer has one."""
    if "mlp" not in params:
        return hidden_BTD
    return hidden_BTD + MLP(config).apply({"params": params["mlp"]}, normed(config, params["mlp_norm"], hidden_BTD))


def _attend_with_own(query_BTHK: Array, first, own, segments_BT: Array | None, block: int) -> Array:
    """Attention to the first step's keys causally, and to one key of each later step at the query's own position."""
    batch, length, heads, features = query_BTHK.shape
    groups = first[0].shape[2]
    query_BTGRK = query_BTHK.reshape(batch, length, groups, heads // groups, features) * features**-0.5
    own_BTGIK, own_values_BTGIK = (jnp.stack([pair[part] for pair in own], axis=3) for part in (0, 1))
    block = block or BLOCK.get(jax.default_backend(), BLOCK_ELSEWHERE)

    def attend(start: int) -> Array:
        end = min(start + block, length)
        query = query_BTGRK[:, start:end]
        key, value = (x[:, :end] for x in first)
        scores = jnp.einsum("btgrk,bsgk->bgrts", query, key, preferred_element_type=jnp.float32)
        sees = (jnp.arange(end)[None] <= jnp.arange(start, end)[:, None])[None, None, None]
        if segments_BT is not None:
            sees &= (segments_BT[:, start:end, None] == segments_BT[:, None, :end])[:, None, None]
        at_own = jnp.einsum("btgrk,btgik->bgrti", query, own_BTGIK[:, start:end], preferred_element_type=jnp.float32)
        scores = jnp.concatenate([jnp.where(sees, scores, _NEVER), at_own], axis=-1)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bgrts,bsgk->btgrk", weights[..., :end], value)
        return mixed + jnp.einsum("bgrti,btgik->btgrk", weights[..., end:], own_values_BTGIK[:, start:end])

    attend = jax.checkpoint(attend, static_argnums=0) if length > block else attend
    mixed = [attend(start) for start in range(0, length, block)]
    return jnp.concatenate(mixed, axis=1).reshape(batch, length, heads, features)


class ByBlocks:
    """The layer over whole texts, of which every place t ends a block of `block` entries that see each other.

    So each of them sees all up to t: its query is moved there. Later blocks follow t: an entry of theirs sees the first
    blocks' keys up to t, and all keys of its own block and of those between.
    """

    def __init__(self, config: DecoderConfig, params: dict, segments_BT, block: int, *, rematerialise: bool) -> None:
        self._config, self._params, self._segments_BT, self._block = config, params, segments_BT, block
        self._remakes = rematerialise
        self._keys: tuple[Array, Array] | None = None  # of the text's own entries
        self._own: tuple[tuple[Array, Array], ...] = ()

    def first(self, inputs_BTD: Array) -> tuple[Array, ...]:
        """The outputs [B, T, D] of each entry of the blocks that end at t; where one would begin before the text, its
        first entries are the text's first."""
        run = partial(_first_block, self._config, self._block)
        made, self._keys = self._run(run, self._params, inputs_BTD, self._segments_BT)
        return made

    def on(self, inputs: list[Array]) -> tuple[Array, ...]:
        """The outputs of the next blocks, of what each of their entries [B, T, D] reads."""
        run = partial(_own_block, self._config, 1 + len(self._own))
        given = (self._params, tuple(inputs), self._keys, self._own, self._segments_BT)
        made, self._own = self._run(run, *given)
        return made

    def _run(self, run: Any, *given: Any) -> Any:
        return (jax.checkpoint(run) if self._remakes else run)(*given)


def _places(batch: int, length: int, segments_BT: Array | None) -> Array:
    every_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    return every_BT if segments_BT is None else positions_within(segments_BT)


def _turned(config: DecoderConfig, params, inputs_BTD: Array, positions_BT: Array):
    """Queries [B, T, H, K], keys and values [B, T, Hkv, K], turned to their positions."""
    rotation = rotary_angles(positions_BT, size=config.rotary_dim, theta=config.rope_theta, scaling=config.rope_scaling)
    query, key, value = Attention(config).apply({"params": params["attention"]}, inputs_BTD, method="projected")
    return rotate(query, rotation, interleaved=False), rotate(key, rotation, interleaved=False), value


def _ended(config: DecoderConfig, params, mixed_BTHK: Array, residual_BTD: Array) -> Array:
    """The layer's output, of what its heads mixed."""
    flat_BTX = mixed_BTHK.reshape(*mixed_BTHK.shape[:2], -1)
    attended_BTD: Any = Attention(config).apply({"params": params["attention"]}, flat_BTX, method="outward")
    return with_mlp(config, params, residual_BTD + attended_BTD)


def _first_block(config: DecoderConfig, block: int, params, inputs_BTD: Array, segments_BT: Array | None):
    batch, length, _ = inputs_BTD.shape
    place_BT = _places(batch, length, segments_BT)
    query_BTHK, *keys = _turned(config, params, inputs_BTD, place_BT)
    how = {"kernel": config.attention, "block": config.attention_block, "segments_BT": segments_BT}
    made = []
    for back in reversed(range(block)):
        index_BT = jnp.arange(length, dtype=jnp.int32)[None] - jnp.minimum(place_BT, back)
        moved = jnp.take_along_axis(query_BTHK, index_BT[..., None, None], axis=1)
        beside = jnp.take_along_axis(inputs_BTD, index_BT[..., None], axis=1)
        made.append(_ended(config, params, causal_attention(moved, *keys, **how), beside))
    return tuple(made), tuple(keys)


def _own_block(config: DecoderConfig, after: int, params, inputs, keys, own, segments_BT: Array | None):
    batch, length, _ = inputs[0].shape
    place_BT, queries = _places(batch, length, segments_BT), []
    for j, inputs_BTD in enumerate(inputs):
        query, *of_entry = _turned(config, params, inputs_BTD, place_BT + after + j)
        queries.append(query)
        own = (*own, tuple(of_entry))
    see = (keys, own, segments_BT, config.attention_block)
    made = [_ended(config, params, _attend_with_own(x, *see), y) for x, y in zip(queries, inputs, strict=True)]
    return tuple(made), own


def ask(config: DecoderConfig, params, inputs_BND, residual_BND, cache: KVCache, positions_BN, mask_BNS) -> Array:
    """The layer's output [B, N, D] at entries that the cache holds already, each seeing what its mask shows."""
    query_BNHK, _, _ = _turned(config, params, inputs_BND, positions_BN)
    key, value = (x[0].astype(query_BNHK.dtype) for x in (cache.keys, cache.values))
    return _ended(config, params, cached_attention(query_BNHK, key, value, mask_BNS), residual_BND)


def read(config: DecoderConfig, params, inputs_BTW, residual_BTD, cache: KVCache, positions_BT=None, mask_BTS=None):
    """(hidden_BTD, the cache with T entries more per row): the layer in decoding; arguments as of `CausalLM.run`."""
    count, start_B = inputs_BTW.shape[1], jnp.asarray(cache.lengths_B)
    steps_1T = jnp.arange(count, dtype=jnp.int32)[None]
    if positions_BT is None:
        positions_BT = start_B[:, None] + steps_1T
    if mask_BTS is None:
        slots_11S = jnp.arange(cache.slots, dtype=jnp.int32)[None, None]
        mask_BTS = slots_11S <= (start_B[:, None] + steps_1T)[:, :, None]
    rotation = rotary_angles(positions_BT, size=config.rotary_dim, theta=config.rope_theta, scaling=config.rope_scaling)
    where, written = Where(rotation, mask_BTS, start_B), (cache.keys[0], cache.values[0])
    made: Any = Attention(config).apply({"params": params["attention"]}, inputs_BTW, where, written)
    attended_BTD, written = made
    cache = replace(cache, keys=(written[0],), values=(written[1],), lengths_B=start_B + jnp.int32(count))
    return with_mlp(config, params, residual_BTD + attended_BTD), cache


def together(config: DecoderConfig, params, hidden_NKD: Array) -> Array:
    """The layer over K states that all see each other, without rotation: a norm before each of its sublayers."""
    count, width, _ = hidden_NKD.shape
    where = Where(None, jnp.ones((count, width, width), bool), None)
    inputs_NKD = normed(config, params["attention_norm"], hidden_NKD)
    made: Any = Attention(config).apply({"params": params["attention"]}, inputs_NKD, where)
    return with_mlp(config, params, hidden_NKD + made[0])


def empty_cache(config: DecoderConfig, batch_size: int, slots: int, dtype, *, layers: int = 1) -> KVCache:
    sizes = {"layers": layers, "kv_heads": config.num_kv_heads, "head_dim": config.head_dim, "dtype": dtype}
    return KVCache.zeros(batch_size, slots, **sizes)
