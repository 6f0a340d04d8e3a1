"""One decoder for every family: what differs between families is data in `DecoderConfig`.

Parameter paths: `embed/embedding` [V, D]; `position_embed/embedding` [positions, D] (with `learned_positions`); per
layer `layers_i/attention_norm`, `layers_i/mlp_norm` (absent when shared) and `layers_i/{attention,mlp}_out_norm`, as
`norms` says, `layers_i/attention/{q,k,v,out}`, `layers_i/attention/{q_norm,k_norm}` (with `qk_norm`; as wide as one
head, or as all), `layers_i/mlp/{up,gate,down}` (gate only when gated; with experts `layers_i/mlp/router` and stacks of
matrices, `experts.py`); `final_norm`; `head` (absent when tied). Linear layers hold a `kernel` [in, out], perhaps a
`bias` [out] and perhaps a low-rank update `lora_a` [in, R], `lora_b` [R, out]; norms hold `scale` and, for "layer",
`bias`. `layers` in place of all `layers_i` holds them stacked, [L, ...]: then one layer is compiled, and a scan walks
through them. For decoding, linear layers may be laid out otherwise: `decoding_layout.py`.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
from flax import linen as nn

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.models.attention import capped
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.decoding_layout import WEIGHT, product
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.layer import Form, Layer, norm_of, run_equal_layer, run_layer
from adaspec_jax.models.layer_set import sublayers_of
from adaspec_jax.models.placing import Entries, Placed
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
        placed = Placed.of(self.config, tokens_BT, None, None, None, None)
        hidden_BTD = self._begun(tokens_BT, placed)
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD, placed.in_layer(0)[0])
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
        end = c.num_layers if last is None else last
        if cache is not None and cache.tails:
            cache = cache.roll_back(cache.lengths_B)
        placed = Placed.of(c, tokens_BT, cache, positions_BT, mask_BTS, segments_BT)
        hidden_BTD = self._begun(tokens_BT, placed, hidden_BTD)
        if cache is None and STACKED in params and keep is None and not any(tap % 1 for tap in taps):
            hidden_BTD, tapped = self._scanned(hidden_BTD, placed, first, end, taps)
        else:
            tapped, entries = {}, None if cache is None else Entries(cache)
            for i in range(first, end):
                stacked = STACKED in params
                layer = jax.tree.map(itemgetter(i), params[STACKED]) if stacked else params[f"layers_{i}"]
                where, form = placed.in_layer(i)
                form, entered_BTD = form._replace(runs=sublayers_of(keep, i), tells=i + 0.5 in taps), hidden_BTD
                before = None if entries is None else entries[i]
                hidden_BTD, after, attended_BTD = self._of_layer(form)(layer, hidden_BTD, where, before)
                if entries is not None:
                    entries.put(i, after, form)
                if attended_BTD is not None:
                    tapped[i + 0.5] = entered_BTD + attended_BTD
                if i in taps:
                    tapped[i] = hidden_BTD
            if entries is not None:
                cache = entries.extended(placed.start_B, tokens_BT.shape[1])
        if last is None:
            hidden_BTD = tapped[-1] = self.final_norm(hidden_BTD)
        return hidden_BTD, cache, tuple(tapped[i] for i in taps)

    def _scanned(self, hidden_BTD, placed: Placed, first: int, end: int, taps):
        """Layers `first` to `end` of a stacked model, one compiled, and what was tapped of them."""
        tapped, layers = {}, (self.variables["params"][STACKED], placed.kinds())

        def body(hidden_BTD, layer):
            where, form = placed.in_layer_of(layer[1])
            return self._of_layer(form)(layer[0], hidden_BTD, where, None)[0], None

        ends = sorted({end, *(int(tap) + 1 for tap in taps if tap >= 0)})
        for begin, stop in zip([first, *ends], ends, strict=False):
            span = jax.tree.map(itemgetter(slice(begin, stop)), layers)
            hidden_BTD, _ = jax.lax.scan(body, hidden_BTD, span)
            tapped[stop - 1] = hidden_BTD
        return hidden_BTD, tapped

    def _begun(self, tokens_BT, placed: Placed, hidden_BTD=None):
        """What enters the first layer: the embedded tokens, where nothing else is said to."""
        c = self.config
        if hidden_BTD is None:
            hidden_BTD = self.embedded(tokens_BT)
            if c.learned_positions:
                # Padding may lie past the last position; what callers ask for there is refused by `check_context`.
                hidden_BTD = hidden_BTD + self.position_embed(jnp.minimum(placed.positions_BT, c.max_positions - 1))
        return constrain(hidden_BTD, ROWS, None, None)

    def _of_layer(self, form: Form):
        c = self.config
        known = all(isinstance(run, bool) for run in form.runs)
        of_layer = partial(run_equal_layer if known else run_layer, c, form)
        if c.rematerialise:
            return jax.checkpoint(of_layer, prevent_cse=STACKED not in self.variables["params"])
        return of_layer

    def embedded(self, tokens):
        hidden = self.embed(tokens)
        scale = self.config.embed_scale
        return hidden if scale == 1.0 else hidden * jnp.asarray(scale, hidden.dtype)

    def unembed(self, hidden):
        """Float32 logits of hidden states of any leading shape; columns past `num_tokens` are ruled out."""
        c = self.config
        if c.tie_embeddings and not self.has_variable("params", "head"):
            # float32 even for bfloat16 parameters: rounding logits to 8 bits makes argmax ties.
            logits = jnp.einsum("...d,vd->...v", hidden, self.embed.embedding, preferred_element_type=jnp.float32)
        else:
            logits = self.head(hidden)
        if c.logit_scale != 1.0:
            logits = logits * c.logit_scale
        logits = capped(logits, c.logit_softcap)
        return constrain(rule_out(logits, c), ROWS, None, "tensor")
