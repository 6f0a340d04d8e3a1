"""One decoder for every family: what differs between families is data in `DecoderConfig`.

Parameter paths: `embed/embedding` [V, D]; `position_embed/embedding` [positions, D] (with `learned_positions`); per
layer `layers_i/attention_norm`, `layers_i/mlp_norm` (absent when shared), `layers_i/attention/{q,k,v,out}`,
`layers_i/attention/{q_norm,k_norm}` (one head wide, with `qk_norm`), `layers_i/mlp/{up,gate,down}` (gate only when
gated); `final_norm`; `head` (absent when tied). Linear layers hold a `kernel` [in, out], perhaps a `bias` [out] and
perhaps a low-rank update `lora_a` [in, R], `lora_b` [R, out]; norms hold `scale` and, for "layer", `bias`. `layers` in
place of all `layers_i` holds them stacked, [L, ...]: then one layer is compiled, and a scan walks through them.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.attention import causal_attention
from adaspec_jax.models.decoder_config import ACTIVATIONS, DecoderConfig
from adaspec_jax.models.kv_cache import KVCache, write_at
from adaspec_jax.models.rotary import rotary_angles, rotate

STACKED = "layers"  # the parameters of all layers, stacked
PADDING_ROW_LOGIT = -1e9  # added to the columns no token owns: probability zero, and finite in float32


class Linear(nn.Dense):
    """x W + b, and + x A B where the parameters hold a low-rank update (LoRA, arXiv 2106.09685, with alpha = rank)."""

    def __call__(self, inputs):
        outputs = super().__call__(inputs)
        if self.has_variable("params", "lora_a"):
            down, up = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
            outputs = outputs + (inputs @ down) @ up
        return outputs


def _dense(config: DecoderConfig, features: int, use_bias: bool) -> Linear:
    return Linear(features, use_bias=use_bias, kernel_init=nn.initializers.normal(config.initializer_range))


def _norm(config: DecoderConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(epsilon=config.norm_eps)
    # The fast variance E[x^2] - E[x]^2 cancels badly where the mean is large, as it is late in a residual stream.
    return nn.LayerNorm(epsilon=config.norm_eps, use_fast_variance=False)


class Attention(nn.Module):
    config: DecoderConfig

    def setup(self):
        c = self.config
        self.q = _dense(c, c.num_heads * c.head_dim, c.qkv_bias)
        self.k = _dense(c, c.num_kv_heads * c.head_dim, c.qkv_bias)
        self.v = _dense(c, c.num_kv_heads * c.head_dim, c.qkv_bias)
        self.out = _dense(c, c.hidden_size, c.out_bias)
        if c.qk_norm:
            self.q_norm, self.k_norm = _norm(c), _norm(c)

    def __call__(self, hidden_BTD, rotation, mask_B1TS, written, start_B):
        """`written` is this layer's (keys, values) buffers, extended at `start_B` and returned; or None."""
        c = self.config
        heads = lambda x: x.reshape(*x.shape[:2], -1, c.head_dim)  # noqa: E731
        query_BTHK, key_BSHK = heads(self.q(hidden_BTD)), heads(self.k(hidden_BTD))
        if c.qk_norm:
            query_BTHK, key_BSHK = self.q_norm(query_BTHK), self.k_norm(key_BSHK)
        query_BTHK = rotate(query_BTHK, rotation, interleaved=c.rotary_interleaved)
        key_BSHK = rotate(key_BSHK, rotation, interleaved=c.rotary_interleaved)
        value_BSHK = heads(self.v(hidden_BTD))
        if written is not None:
            key_BSHK = write_at(written[0], key_BSHK, start_B)
            value_BSHK = write_at(written[1], value_BSHK, start_B)
            written = (key_BSHK, value_BSHK)
        dtype = query_BTHK.dtype
        key_BSHK, value_BSHK = key_BSHK.astype(dtype), value_BSHK.astype(dtype)
        if mask_B1TS is None:
            mixed_BTHK = causal_attention(query_BTHK, key_BSHK, value_BSHK, kernel=c.attention, block=c.attention_block)
        else:
            mixed_BTHK = jax.nn.dot_product_attention(query_BTHK, key_BSHK, value_BSHK, mask=mask_B1TS)
        return self.out(mixed_BTHK.reshape(*hidden_BTD.shape[:2], -1)), written


class MLP(nn.Module):
    config: DecoderConfig

    def setup(self):
        c = self.config
        self.up = _dense(c, c.intermediate_size, c.mlp_bias)
        if c.mlp == "gated":
            self.gate = _dense(c, c.intermediate_size, c.mlp_bias)
        self.down = _dense(c, c.hidden_size, c.mlp_bias)

    def __call__(self, hidden_BTD):
        activation = ACTIVATIONS[self.config.activation]
        if self.config.mlp == "gated":
            return self.down(activation(self.gate(hidden_BTD)) * self.up(hidden_BTD))
        return self.down(activation(self.up(hidden_BTD)))


class Layer(nn.Module):
    config: DecoderConfig

    def setup(self):
        c = self.config
        self.attention_norm = _norm(c)
        if not c.shared_norm:
            self.mlp_norm = _norm(c)
        self.attention = Attention(c)
        self.mlp = MLP(c)

    def __call__(self, hidden_BTD, rotation, mask_B1TS, written, start_B):
        c = self.config
        normed_BTD = self.attention_norm(hidden_BTD)
        attended_BTD, written = self.attention(normed_BTD, rotation, mask_B1TS, written, start_B)
        if c.parallel_residual:
            mlp_input_BTD = normed_BTD if c.shared_norm else self.mlp_norm(hidden_BTD)
            return hidden_BTD + attended_BTD + self.mlp(mlp_input_BTD), written
        hidden_BTD = hidden_BTD + attended_BTD
        return hidden_BTD + self.mlp(self.mlp_norm(hidden_BTD)), written


@partial(jax.jit, static_argnums=0)
def _layer(config: DecoderConfig, params, *inputs):
    """Jitted by itself, so that equal layers are traced and lowered once; XLA inlines them."""
    hidden_BTD, written = Layer(config, parent=None).apply({"params": params}, *inputs)
    return constrain(hidden_BTD, ROWS, None, None), written


class Head(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        kernel_DV = self.param("kernel", init, (c.hidden_size, c.vocab_size))
        logits = jnp.einsum("...d,dv->...v", hidden, kernel_DV, preferred_element_type=jnp.float32)
        if c.head_bias:
            bias_V = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
            logits = logits + bias_V.astype(jnp.float32).reshape((1,) * (logits.ndim - 1) + (-1,))
        return logits


class Decoder(nn.Module):
    """Tokens to final hidden states to logits; parameters only, the cache is an argument and a result."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        self.embed = nn.Embed(c.vocab_size, c.hidden_size, embedding_init=init)
        if c.learned_positions:
            self.position_embed = nn.Embed(c.max_positions, c.hidden_size, embedding_init=init)
        self.layers = [Layer(c) for _ in range(c.num_layers)]
        self.final_norm = _norm(c)
        if not c.tie_embeddings:
            self.head = Head(c)

    def __call__(self, tokens_BT, cache=None, positions_BT=None, mask_BTS=None):
        hidden_BTD, cache = self.features(tokens_BT, cache, positions_BT, mask_BTS)
        return self.unembed(hidden_BTD), cache

    def features(self, tokens_BT, cache: KVCache | None = None, positions_BT=None, mask_BTS=None):
        """Hidden states after the final norm, and the cache with T more tokens per row (None without one)."""
        count = tokens_BT.shape[1]
        start_B = jnp.zeros((tokens_BT.shape[0],), jnp.int32) if cache is None else cache.lengths_B
        steps_1T = jnp.arange(count, dtype=jnp.int32)[None, :]
        if positions_BT is None:
            positions_BT = start_B[:, None] + steps_1T
        if mask_BTS is None and cache is not None:
            slots_11S = jnp.arange(cache.slots, dtype=jnp.int32)[None, None, :]
            mask_BTS = slots_11S <= (start_B[:, None] + steps_1T)[:, :, None]
        c = self.config
        rotation = rotary_angles(positions_BT, size=c.rotary_dim, theta=c.rope_theta, scaling=c.rope_scaling)
        mask_B1TS = None if mask_BTS is None else mask_BTS[:, None, :, :]  # None: causal, from the first slot on

        hidden_BTD = self.embed(tokens_BT)
        if self.config.learned_positions:
            # Padding may lie past the last position; what callers ask for there is refused by `check_context`.
            hidden_BTD = hidden_BTD + self.position_embed(jnp.minimum(positions_BT, self.config.max_positions - 1))
        hidden_BTD = constrain(hidden_BTD, ROWS, None, None)
        if self.is_initializing():
            for layer in self.layers:
                hidden_BTD, _ = layer(hidden_BTD, rotation, mask_B1TS, None, start_B)
            return self.final_norm(hidden_BTD), None
        c, params = self.config, self.variables["params"]
        of_layer = partial(_layer, c)
        if c.rematerialise:
            of_layer = jax.checkpoint(of_layer, prevent_cse=STACKED not in params)
        if cache is None and STACKED in params:

            def body(hidden_BTD, layer):
                return of_layer(layer, hidden_BTD, rotation, mask_B1TS, None, start_B)[0], None

            hidden_BTD, _ = jax.lax.scan(body, hidden_BTD, params[STACKED])
            return self.final_norm(hidden_BTD), None
        buffers = [None] * c.num_layers if cache is None else list(zip(cache.keys, cache.values, strict=True))
        for i in range(c.num_layers):
            stacked = STACKED in params
            layer = jax.tree.map(itemgetter(i), params[STACKED]) if stacked else params[f"layers_{i}"]
            hidden_BTD, buffers[i] = of_layer(layer, hidden_BTD, rotation, mask_B1TS, buffers[i], start_B)
        if cache is not None:
            keys, values = zip(*buffers, strict=True)
            cache = KVCache(keys=keys, values=values, lengths_B=start_B + jnp.int32(count))
        return self.final_norm(hidden_BTD), cache

    def unembed(self, hidden):
        """Float32 logits of hidden states of any leading shape; columns past `num_tokens` are ruled out."""
        c = self.config
        if c.tie_embeddings:
            # float32 even for bfloat16 parameters: rounding logits to 8 bits makes argmax ties.
            logits = jnp.einsum("...d,vd->...v", hidden, self.embed.embedding, preferred_element_type=jnp.float32)
        else:
            logits = self.head(hidden)
        if c.num_tokens < c.vocab_size:
            ruled_out_V = np.where(np.arange(c.vocab_size) < c.num_tokens, 0, PADDING_ROW_LOGIT).astype(np.float32)
            logits = logits + ruled_out_V.reshape((1,) * (logits.ndim - 1) + (-1,))
        return constrain(logits, ROWS, None, "tensor")
