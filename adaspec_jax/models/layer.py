"""One layer of every family: its linear layers and norms, attention, MLP, and how they add to the residual stream."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.attention import cached_attention, causal_attention
from adaspec_jax.models.decoder_config import ACTIVATIONS, DecoderConfig
from adaspec_jax.models.decoding_layout import WEIGHT, product
from adaspec_jax.models.experts import MixtureMLP
from adaspec_jax.models.kv_cache import write_at
from adaspec_jax.models.layer_set import where_it_runs
from adaspec_jax.models.ring import written_around
from adaspec_jax.models.rotary import rotary_angles, rotate


class Where(NamedTuple):
    """Where a layer's tokens stand, and what they see there."""

    rotation: tuple[Array, Array] | None  # cosines and sines of their positions; None: nothing is rotated
    mask_BTS: Array | None  # of the layer's entries; None: what precedes them among themselves
    start_B: Any  # an Array, where their entries are written; None: in an empty cache
    segments_BT: Array | None = None
    reach: Array | None = None  # the window, where it is known on the device alone


class Form(NamedTuple):
    """What of a layer is known when its program is traced."""

    runs: tuple = (True, True)  # attention and MLP; bool or traced
    tells: bool = False  # what attention adds comes back
    window: int = 0  # 0: it attends to all
    writes: Literal["slots", "ring", "tail"] = "slots"  # entries into the buffers, around them, or beside them


def rotation_at(config: DecoderConfig, kind: int, positions_BT: Array) -> tuple[Array, Array] | None:
    """How a layer whose rotation is of this kind turns queries and keys at these positions; None: it does not."""
    c = config
    if kind < 0:
        return None
    theta, scaling = (c.local_rope_theta, c.local_rope_scaling) if kind else (c.rope_theta, c.rope_scaling)
    return rotary_angles(positions_BT, size=c.rotary_dim, theta=theta, scaling=scaling)


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


class OffsetRMSNorm(nn.Module):
    """RMSNorm that multiplies by 1 + scale, in float32 (Gemma)."""

    epsilon: float

    @nn.compact
    def __call__(self, hidden):
        scale = self.param("scale", nn.initializers.zeros, (hidden.shape[-1],))
        wide = hidden.astype(jnp.float32)
        wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        factor = 1 + scale.astype(jnp.float32).reshape((1,) * (hidden.ndim - 1) + (-1,))
        return (wide * factor).astype(jnp.result_type(hidden, scale))


def norm_of(config: DecoderConfig) -> nn.Module:
    """The family's normalisation."""
    if config.norm_offset:
        return OffsetRMSNorm(epsilon=config.norm_eps)
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

    def __call__(self, hidden_BTD, where: Where, written=None, form: Form = Form()):  # noqa: B008
        """`written` is this layer's (keys, values) buffers, extended where `form` says, and returned; or None.

        Without a mask the new tokens attend to each other causally, within their segment and their window, and to
        nothing that was written before.
        """
        c = self.config
        query_BTHK, key_BTGK, value_BTGK = self.projected(hidden_BTD)
        if c.qk_norm and not c.qk_norm_whole:
            query_BTHK, key_BTGK = self.q_norm(query_BTHK), self.k_norm(key_BTGK)
        if where.rotation is not None:
            query_BTHK = rotate(query_BTHK, where.rotation, interleaved=c.rotary_interleaved)
            key_BTGK = rotate(key_BTGK, where.rotation, interleaved=c.rotary_interleaved)
        new, dtype = (key_BTGK, value_BTGK), query_BTHK.dtype
        seen: Any = written
        before: Any = written
        if written is None or form.writes == "tail":
            seen = tuple(jnp.moveaxis(x, 1, 2) for x in new)
            written = None if written is None else seen
        elif form.writes == "ring":
            seen = written = tuple(written_around(x, y, where.start_B) for x, y in zip(before, new, strict=True))
        else:
            seen = written = tuple(write_at(x, y, where.start_B) for x, y in zip(before, new, strict=True))
        if where.mask_BTS is None:
            how: dict[str, Any] = {"kernel": c.attention, "block": c.attention_block, "segments_BT": where.segments_BT}
            how |= {"window": form.window if where.reach is None else where.reach}
            key, value = (x.astype(dtype) for x in new)
            mixed_BTHK = causal_attention(query_BTHK, key, value, **how, **self._scores)
        else:
            if before is not None and form.writes == "tail":
                seen = (jnp.concatenate(pair, axis=2) for pair in zip(before, seen, strict=True))
            key, value = (x.astype(dtype) for x in seen)
            mixed_BTHK = cached_attention(query_BTHK, key, value, where.mask_BTS, **self._scores)
        return self.out(mixed_BTHK.reshape(*hidden_BTD.shape[:2], -1)), written

    @property
    def _scores(self) -> dict[str, Any]:
        return {"scale": self.config.attention_scale, "softcap": self.config.attention_softcap}

    def outward(self, mixed_BTX):
        """What heads' mixed values [B, T, H * K] add to the residual stream."""
        return self.out(mixed_BTX)

    def projected(self, hidden_BTD):
        """Queries [B, T, H, K], and keys and values [B, T, Hkv, K]."""
        c = self.config
        ends = (c.num_heads, c.num_heads + c.num_kv_heads)
        if not self.has_variable("params", "qkv"):
            apart = (self.q(hidden_BTD), self.k(hidden_BTD), self.v(hidden_BTD))
        elif c.qk_norm_whole:
            apart = jnp.split(self.qkv(hidden_BTD), [end * c.head_dim for end in ends], axis=2)
        else:
            together = self.qkv(hidden_BTD)
            return jnp.split(together.reshape(*together.shape[:2], -1, c.head_dim), ends, axis=2)
        if c.qk_norm_whole:
            apart = (self.q_norm(apart[0]), self.k_norm(apart[1]), apart[2])
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
        if c.norms != "after":
            self.attention_norm = norm_of(c)
            if not c.shared_norm:
                self.mlp_norm = norm_of(c)
        if c.norms != "before":
            self.attention_out_norm, self.mlp_out_norm = norm_of(c), norm_of(c)
        self.attention = Attention(c)
        self.mlp = MixtureMLP(c) if c.experts else MLP(c)

    def __call__(self, hidden_BTD, where: Where):
        """Both sublayers, for `init` to make their parameters."""
        return hidden_BTD + self.attend(hidden_BTD, where)[0] + self.mix(hidden_BTD)

    def attend(self, hidden_BTD, where: Where, written=None, form: Form = Form()):  # noqa: B008
        """What attention adds, and the layer's buffers."""
        added_BTD, written = self.attention(self.read_by_attention(hidden_BTD), where, written, form)
        if self.config.norms != "before":
            added_BTD = self.attention_out_norm(added_BTD)
        return self._scaled(added_BTD), written

    def mix(self, hidden_BTD):
        """What the MLP adds."""
        c = self.config
        if c.norms != "after":
            hidden_BTD = (self.attention_norm if c.shared_norm else self.mlp_norm)(hidden_BTD)
        added_BTD = self.mlp(hidden_BTD)
        return self._scaled(added_BTD if c.norms == "before" else self.mlp_out_norm(added_BTD))

    def read_by_attention(self, hidden_BTD):
        """What attention reads of the residual stream."""
        return hidden_BTD if self.config.norms == "after" else self.attention_norm(hidden_BTD)

    def _scaled(self, added_BTD):
        scale = self.config.residual_scale
        return added_BTD if scale == 1.0 else (added_BTD.astype(jnp.float32) * scale).astype(added_BTD.dtype)


def run_layer(config: DecoderConfig, form: Form, params, hidden_BTD, where: Where, written):
    """One layer, of whose sublayers those that `form.runs` says add to `hidden_BTD`.

    (The residual stream, the layer's buffers, what attention adds where `form.tells`.)
    """

    def part(method: str, *inputs):
        return Layer(config, parent=None).apply({"params": params}, *inputs, method=method)

    attends, mixes = form.runs
    nothing, form = jnp.zeros_like(hidden_BTD), form._replace(runs=())
    attend = partial(part, "attend", hidden_BTD, where, written, form)
    attended_BTD, written = where_it_runs(attends, attend, (nothing, written))
    mixed_BTD = hidden_BTD if config.parallel_residual else hidden_BTD + attended_BTD
    added_BTD = where_it_runs(mixes, lambda: part("mix", mixed_BTD), nothing)
    hidden_BTD = hidden_BTD + attended_BTD + added_BTD
    return constrain(hidden_BTD, ROWS, None, None), written, attended_BTD if form.tells else None


# Jitted by itself, so that equal layers are traced and lowered once; XLA inlines them.
run_equal_layer = jax.jit(run_layer, static_argnums=(0, 1))
