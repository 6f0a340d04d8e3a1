"""How much attention a few tokens give to each cached key: what a selection of keys goes by."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.attention import capped
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.layer import Layer, rotation_at
from adaspec_jax.models.rotary import rotate


def attention_to_keys(
    config: DecoderConfig, kind: int, layer: Any, hidden_BTD: Array, key_BGSK: Array, position_BT: Array
) -> Array:
    """[B, G, S]: softmax over the keys up to each token's own place, summed over tokens and over heads that share keys.

    `kind`: the layer's rotation; `layer`: its parameters; `hidden_BTD` is what enters it. A token at a position below 0
    counts for nothing.
    """
    c = config
    rotation = rotation_at(c, kind, jnp.maximum(position_BT, 0))
    query_BTHK: Any = Layer(c, parent=None).apply({"params": layer}, hidden_BTD, rotation, method=_queries)
    batch, count, heads, features = query_BTHK.shape
    groups = key_BGSK.shape[1]
    rows_BTGRK = query_BTHK.reshape(batch, count, groups, heads // groups, features)
    scores_BGRTS = jnp.einsum("btgrk,bgsk->bgrts", rows_BTGRK, key_BGSK, preferred_element_type=jnp.float32)
    sees_BTS = jnp.arange(key_BGSK.shape[2])[None, None] <= position_BT[:, :, None]
    scale = features**-0.5 if c.attention_scale is None else c.attention_scale
    scores_BGRTS = capped(scores_BGRTS * scale, c.attention_softcap)
    scores_BGRTS = jnp.where(sees_BTS[:, None, None], scores_BGRTS, -jnp.inf)
    weights_BGRTS = jax.nn.softmax(scores_BGRTS, axis=-1)
    return jnp.sum(jnp.where(sees_BTS[:, None, None], weights_BGRTS, 0), axis=(2, 3))


def _queries(layer: Layer, hidden_BTD: Array, rotation: Any) -> Array:
    c = layer.config
    query_BTHK = layer.attention.projected(layer.read_by_attention(hidden_BTD))[0]
    query_BTHK = layer.attention.q_norm(query_BTHK) if c.qk_norm and not c.qk_norm_whole else query_BTHK
    return query_BTHK if rotation is None else rotate(query_BTHK, rotation, interleaved=c.rotary_interleaved)
