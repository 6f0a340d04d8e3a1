"""One layer of every family: its linear layers and norms, attention, MLP, and how they add to the residual stream."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.attention import cached_attention, causal_attention
from adaspec_jax.models.decoder_config import ACTIVATIONS, DecoderConfig
from adaspec_jax.models.decoding_layout import WEIGHT, product
from adaspec_jax.models.kv_cache import write_at
from adaspec_jax.models.layer_set import where_it_runs
from adaspec_jax.models.rotary import rotate


class Linear(nn.Dense):
    """x W + b, and + x A B where the parameters hold a low-rank update (LoRA, arXiv 2106.09685, with alpha = rank)."""

    def __call__(self, inputs):
        if self.has_variable("params", WEIGHT):
            outputs = product(inputs, self.get_variable("params", WEIGHT)).astype(inputs.dtype)
            if self.use_bias:
                outputs += self.get_variable("params", "bias").reshape((1,) * (outputs.ndim - 1) + (-1,))
            return outputs
        outputs = super().__call__(inputs)
        if self.has_variable("params", "lora_a"):
            down, up = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
            outputs = outputs + (inputs @ down) @ up
        return outputs


def _dense(config: DecoderConfig, features: int, use_bias: bool) -> Linear:
    return Linear(features, use_bias=use_bias, kernel_init=nn.initializers.normal(config.initializer_range))


def norm_of(config: DecoderConfig) -> nn.Module:
    """The family's normalisation."""
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
        self.qkv = _dense(c, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim, c.qkv_bias)  # one of these two forms
        self.out = _dense(c, c.hidden_size, c.out_bias)
        if c.qk_norm:
            self.q_norm, self.k_norm = norm_of(c), norm_of(c)

    def __call__(self, hidden_BTD, rotation, mask_BTS, written, start_B, segments_BT=None):
        """`written` is this layer's (keys, values) buffers, extended at `start_B` (None: empty) and returned; or None.

        Without a mask the new tokens attend to each other causally, within their segment, and to nothing that was
        written before.
        """
        c = self.config
        query_BTHK, key_BTGK, value_BTGK = self.projected(hidden_BTD)
        if c.qk_norm:
            query_BTHK, key_BTGK = self.q_norm(query_BTHK), self.k_norm(key_BTGK)
        query_BTHK = rotate(query_BTHK, rotation, interleaved=c.rotary_interleaved)
        key_BTGK = rotate(key_BTGK, rotation, interleaved=c.rotary_interleaved)
        if written is not None:
            written = write_at(written[0], key_BTGK, start_B), write_at(written[1], value_BTGK, start_B)
        dtype = query_BTHK.dtype
        if mask_BTS is None:
            how = {"kernel": c.attention, "block": c.attention_block, "segments_BT": segments_BT}
            mixed_BTHK = causal_attention(query_BTHK, key_BTGK.astype(dtype), value_BTGK.astype(dtype), **how)
        else:
            seen = written or (jnp.moveaxis(key_BTGK, 1, 2), jnp.moveaxis(value_BTGK, 1, 2))
            mixed_BTHK = cached_attention(query_BTHK, *(x.astype(dtype) for x in seen), mask_BTS)
        return self.out(mixed_BTHK.reshape(*hidden_BTD.shape[:2], -1)), written

    def outward(self, mixed_BTX):
        """What heads' mixed values [B, T, H * K] add to the residual stream."""
        return self.out(mixed_BTX)

    def projected(self, hidden_BTD):
        """Queries [B, T, H, K], and keys and values [B, T, Hkv, K]."""
        c = self.config
        if self.has_variable("params", "qkv"):
            ends = (c.num_heads, c.num_heads + c.num_kv_heads)
            together = self.qkv(hidden_BTD)
            return jnp.split(together.reshape(*together.shape[:2], -1, c.head_dim), ends, axis=2)
        apart = (self.q(hidden_BTD), self.k(hidden_BTD), self.v(hidden_BTD))
        return [x.reshape(*x.shape[:2], -1, c.head_dim) for x in apart]


class MLP(nn.Module):
    config: DecoderConfig

    def setup(self):
        c = self.config
        self.up = _dense(c, c.intermediate_size, c.mlp_bias)
        if c.mlp == "gated":
            self.gate = _dense(c, c.intermediate_size, c.mlp_bias)
            self.gate_up = _dense(c, 2 * c.intermediate_size, c.mlp_bias)  # in place of both
        self.down = _dense(c, c.hidden_size, c.mlp_bias)

    def __call__(self, hidden_BTD):
        activation = ACTIVATIONS[self.config.activation]
        if self.has_variable("params", "gate_up"):
            gate, up = jnp.split(self.gate_up(hidden_BTD), 2, axis=-1)
            return self.down(activation(gate) * up)
        if self.config.mlp == "gated":
            return self.down(activation(self.gate(hidden_BTD)) * self.up(hidden_BTD))
        return self.down(activation(self.up(hidden_BTD)))


class Layer(nn.Module):
    config: DecoderConfig

    def setup(self):
        c = self.config
        self.attention_norm = norm_of(c)
        if not c.shared_norm:
            self.mlp_norm = norm_of(c)
        self.attention = Attention(c)
        self.mlp = MLP(c)

    def __call__(self, hidden_BTD, *where):
        """Both sublayers, for `init` to make their parameters."""
        return hidden_BTD + self.attend(hidden_BTD, *where)[0] + self.mix(hidden_BTD)

    def attend(self, hidden_BTD, *where):
        """What attention adds, and the layer's buffers."""
        return self.attention(self.attention_norm(hidden_BTD), *where)

    def mix(self, hidden_BTD):
        """What the MLP adds."""
        return self.mlp((self.attention_norm if self.config.shared_norm else self.mlp_norm)(hidden_BTD))


def run_layer(
    config: DecoderConfig, runs: tuple, tells: bool, params, hidden_BTD, rotation, mask_BTS, written, *begins
):
    """One layer, of whose sublayers those that `runs` says add to `hidden_BTD`; with `tells` what attention adds."""

    def part(method: str, *inputs):
        return Layer(config, parent=None).apply({"params": params}, *inputs, method=method)

    nothing, where = jnp.zeros_like(hidden_BTD), (rotation, mask_BTS, written, *begins)
    attends, mixes = runs
    attended_BTD, written = where_it_runs(attends, lambda: part("attend", hidden_BTD, *where), (nothing, written))
    mixed_BTD = hidden_BTD if config.parallel_residual else hidden_BTD + attended_BTD
    added_BTD = where_it_runs(mixes, lambda: part("mix", mixed_BTD), nothing)
    hidden_BTD = hidden_BTD + attended_BTD + added_BTD
    return constrain(hidden_BTD, ROWS, None, None), written, attended_BTD if tells else None


# Jitted by itself, so that equal layers are traced and lowered once; XLA inlines them.
run_equal_layer = jax.jit(run_layer, static_argnums=(0, 1, 2))
