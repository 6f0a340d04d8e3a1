"""One decoder for every family: what differs between families is data in `DecoderConfig`.

Parameter paths: `embed/embedding` [V, D]; `position_embed/embedding` [positions, D] (with `learned_positions`); per
layer `layers_i/attention_norm`, `layers_i/mlp_norm` (absent when shared), `layers_i/attention/{q,k,v,out}`,
`layers_i/attention/{q_norm,k_norm}` (one head wide, with `qk_norm`), `layers_i/mlp/{up,gate,down}` (gate only when
gated); `final_norm`; `head` (absent when tied). Linear layers hold a `kernel` [in, out], perhaps a `bias` [out] and
perhaps a low-rank update `lora_a` [in, R], `lora_b` [R, out]; norms hold `scale` and, for "layer", `bias`. `layers` in
place of all `layers_i` holds them stacked, [L, ...]: then one layer is compiled, and a scan walks through them. For
decoding, linear layers may be laid out otherwise: `decoding_layout.py`.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
from flax import linen as nn

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.attention import positions_within
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.decoding_layout import WEIGHT, product
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.layer import Layer, norm_of, run_equal_layer, run_layer
from adaspec_jax.models.layer_set import sublayers_of
from adaspec_jax.models.rotary import rotary_angles
from adaspec_jax.models.unowned_rows import rule_out

STACKED = "layers"  # the parameters of all layers, stacked


class Head(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        if self.has_variable("params", WEIGHT):
            logits = product(hidden, self.get_variable("params", WEIGHT))
        else:
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
        self.final_norm = norm_of(c)
        self.head = Head(c)

    def __call__(self, tokens_BT):
        """Every module once, for `init` to make its parameters."""
        hidden_BTD, where = self._begin(tokens_BT, None, None, None, None, None)
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD, *where[:2], None, where[2])
        return self.unembed(self.final_norm(hidden_BTD))

    def run(
        self,
        tokens_BT,
        cache: KVCache | None = None,
        positions_BT=None,
        mask_BTS=None,
        hidden_BTD=None,
        keep=None,
        segments_BT=None,
        *,
        first: int = 0,
        last: int | None = None,
        taps: tuple[float, ...] = (),
    ):
        """(hidden states, the cache with T more tokens per row or None, taps); see `CausalLM.run`."""
        c, params = self.config, self.variables["params"]
        count = tokens_BT.shape[1]
        end = c.num_layers if last is None else last
        hidden_BTD, where = self._begin(tokens_BT, cache, positions_BT, mask_BTS, hidden_BTD, segments_BT)
        start_B, tapped = where[2], {}
        writes_B = None if cache is not None and cache.known_empty else start_B
        if cache is None and STACKED in params and keep is None and not any(tap % 1 for tap in taps):
            of_layer = self._of_layer((True, True))

            def body(hidden_BTD, layer):
                return of_layer(layer, hidden_BTD, *where[:2], None, start_B, segments_BT)[0], None

            ends = sorted({end, *(int(tap) + 1 for tap in taps if tap >= 0)})
            for begin, stop in zip([first, *ends], ends, strict=False):
                span = jax.tree.map(itemgetter(slice(begin, stop)), params[STACKED])
                hidden_BTD, _ = jax.lax.scan(body, hidden_BTD, span)
                tapped[stop - 1] = hidden_BTD
        else:
            buffers = [None] * c.num_layers if cache is None else list(zip(cache.keys, cache.values, strict=True))
            for i in range(first, end):
                stacked = STACKED in params
                layer = jax.tree.map(itemgetter(i), params[STACKED]) if stacked else params[f"layers_{i}"]
                of_layer, entered_BTD = self._of_layer(sublayers_of(keep, i), i + 0.5 in taps), hidden_BTD
                made = of_layer(layer, hidden_BTD, *where[:2], buffers[i], writes_B, segments_BT)
                hidden_BTD, buffers[i], attended_BTD = made
                if attended_BTD is not None:
                    tapped[i + 0.5] = entered_BTD + attended_BTD
                if i in taps:
                    tapped[i] = hidden_BTD
            if cache is not None:
                keys, values = zip(*buffers, strict=True)
                cache = KVCache(keys=keys, values=values, lengths_B=start_B + jnp.int32(count))
        if last is None:
            hidden_BTD = tapped[-1] = self.final_norm(hidden_BTD)
        return hidden_BTD, cache, tuple(tapped[i] for i in taps)

    def _begin(self, tokens_BT, cache: KVCache | None, positions_BT, mask_BTS, hidden_BTD, segments_BT):
        """What enters the first layer, and (rotation, mask_BTS, start_B) for all; no mask: causal, from here on."""
        c, count = self.config, tokens_BT.shape[1]
        start_B = jnp.zeros((tokens_BT.shape[0],), jnp.int32) if cache is None else jnp.asarray(cache.lengths_B)
        steps_1T = jnp.arange(count, dtype=jnp.int32)[None, :]
        if positions_BT is None and segments_BT is not None:
            positions_BT = positions_within(segments_BT)
        elif positions_BT is None:
            positions_BT = start_B[:, None] + steps_1T
        if mask_BTS is None and cache is not None and not cache.known_empty:
            slots_11S = jnp.arange(cache.slots, dtype=jnp.int32)[None, None, :]
            mask_BTS = slots_11S <= (start_B[:, None] + steps_1T)[:, :, None]
        rotation = rotary_angles(positions_BT, size=c.rotary_dim, theta=c.rope_theta, scaling=c.rope_scaling)
        if hidden_BTD is None:
            hidden_BTD = self.embed(tokens_BT)
            if c.learned_positions:
                # Padding may lie past the last position; what callers ask for there is refused by `check_context`.
                hidden_BTD = hidden_BTD + self.position_embed(jnp.minimum(positions_BT, c.max_positions - 1))
        return constrain(hidden_BTD, ROWS, None, None), (rotation, mask_BTS, start_B)

    def _of_layer(self, runs: tuple, tells: bool = False):
        c = self.config
        known = all(isinstance(run, bool) for run in runs)
        of_layer = partial(run_equal_layer if known else run_layer, c, runs, tells)
        if c.rematerialise:
            return jax.checkpoint(of_layer, prevent_cse=STACKED not in self.variables["params"])
        return of_layer

    def embedded(self, tokens):
        return self.embed(tokens)

    def unembed(self, hidden):
        """Float32 logits of hidden states of any leading shape; columns past `num_tokens` are ruled out."""
        c = self.config
        if c.tie_embeddings and not self.has_variable("params", "head"):
            # float32 even for bfloat16 parameters: rounding logits to 8 bits makes argmax ties.
            logits = jnp.einsum("...d,vd->...v", hidden, self.embed.embedding, preferred_element_type=jnp.float32)
        else:
            logits = self.head(hidden)
        return constrain(rule_out(logits, c), ROWS, None, "tensor")
