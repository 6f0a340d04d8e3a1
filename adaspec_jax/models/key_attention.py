"""How much attention a few tokens give to each cached key: what a selection of keys goes by."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.layer import Layer
from adaspec_jax.models.rotary import rotary_angles, rotate


def attention_to_keys(
    config: DecoderConfig, layer: Any, hidden_BTD: Array, key_BGSK: Array, position_BT: Array
) -> Array:
    """[B, G, S]: softmax over the keys up to each token's own place, summed over tokens and over heads that share keys.

    `layer`: the parameters of one; `hidden_BTD` is what enters it. A token at a position below 0 counts for nothing.
    """
    c = config
    rotation = rotary_angles(jnp.maximum(position_BT, 0), size=c.rotary_dim, theta=c.rope_theta, scaling=c.rope_scaling)
    query_BTHK = Layer(c, parent=None).apply({"params": layer}, hidden_BTD, rotation, method=_queries)
    batch, count, heads, features = query_BTHK.shape
    groups = key_BGSK.shape[1]
    rows_BTGRK = query_BTHK.reshape(batch, count, groups, heads // groups, features)
    scores_BGRTS = jnp.einsum("btgrk,bgsk->bgrts", rows_BTGRK, key_BGSK, preferred_element_type=jnp.float32)
    sees_BTS = jnp.arange(key_BGSK.shape[2])[None, None] <= position_BT[:, :, None]
    scores_BGRTS = jnp.where(sees_BTS[:, None, None], scores_BGRTS * features**-0.5, -jnp.inf)
    weights_BGRTS = jax.nn.softmax(scores_BGRTS, axis=-1)
    return jnp.sum(jnp.where(sees_BTS[:, None, None], weights_BGRTS, 0), axis=(2, 3))


def _queries(layer: Layer, hidden_BTD: Array, rotation: Any) -> Array:
    c = layer.config
    query_BTHK = layer.attention.projected(layer.attention_norm(hidden_BTD))[0]
    query_BTHK = layer.attention.q_norm(query_BTHK) if c.qk_norm else query_BTHK
    return rotate(query_BTHK, rotation, interleaved=c.rotary_interleaved)
