"""Amphista: slots that each guess a token further on, and see each other before any of them guesses.

Li et al. 2024 (arXiv 2406.13170): a block of attention both ways between Medusa's heads, and layers that adapt the
target's hidden states in two stages, the second with the token that was sampled. The abstract says so much; no code is
known, and the paper's sizes and losses were not read. All numbers here are ours: one causal layer per stage, the first
begun as the target's last layer where that has the same parameters, one layer among the slots, one output matrix for
all, the target's law weighted 0.8 to the power of the slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.recurrent import OnTarget, linear
from adaspec_jax.models.heads.parts.several import Several
from adaspec_jax.models.heads.parts.texts import following
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.unowned_rows import rule_out

STAGES = ("first", "second")


@dataclass(frozen=True, kw_only=True)
class Amphista(Several):
    """`heads` slots of `blocks` residual blocks each; the target's law unless `hard`."""

    name = "amphista"
    paper = "arXiv 2406.13170"

    hard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        layer.layer_config(self)  # which refuses sizes that it cannot have

    @property
    def layer(self) -> DecoderConfig:
        return layer.layer_config(self)

    @property
    def num_layers(self) -> int:
        return len(STAGES) + 1

    @property
    def one_output(self) -> bool:
        return True

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """The map and the blocks begin with the hidden state itself; the layers but for the first are random."""
        del counts_V
        keys, size, spread = jax.random.split(key, 5), self.sizes.hidden_size, self.sizes.initializer_range
        matrix_DV = target.output_matrix().astype(jnp.float32) * target.config.logit_scale
        joint = linear(keys[3], 2 * size, size, spread)["kernel"].at[:size].set(jnp.eye(size))
        params: dict[str, Any] = {"fc": {"kernel": joint}, "head": {"kernel": matrix_DV}}
        for name, each in zip((*STAGES, "among"), keys, strict=False):
            norm = {"attention_norm": layer.unit_norm(size)}
            params[name] = layer.init_layer(self.layer, each, size) | norm
        params["first"] = _as_last_of(target, params["first"])
        params["place"] = {"embedding": spread * jax.random.normal(keys[4], (self.heads, size), jnp.float32)}
        for i in range(self.heads):
            params[f"head_{i}"] = {f"block_{j}": self._block(size) for j in range(self.blocks)}
        return params, None

    def joined(self, params: Any, adapted: Array, embedded: Array) -> Array:
        """What the second stage reads, of the first's output and of the next token."""
        return jnp.concatenate([adapted, embedded], axis=-1) @ params["fc"]["kernel"]

    def slots(self, params: Any, adapted: Array) -> Array:
        """[..., K, D], of which the output matrix makes the slots' laws, of both stages' output [..., D]."""
        each = [self.mixed(params, i, adapted) for i in range(self.heads)]
        hidden_NKD = jnp.stack(each, axis=-2).reshape(-1, self.heads, adapted.shape[-1])
        made_NKD = layer.together(self.layer, params["among"], hidden_NKD + params["place"]["embedding"][None])
        return made_NKD.reshape(*adapted.shape[:-1], *made_NKD.shape[1:])

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        params, hidden_BTD = head.params, features_BTF
        for stage in STAGES:
            if stage == "second":
                embedded_BTD = jax.lax.stop_gradient(target.embedded(following(tokens_BT, 1)))
                hidden_BTD = self.joined(params, hidden_BTD, embedded_BTD.astype(hidden_BTD.dtype))
            run = layer.Unrolled(self.layer, params[stage], segments_BT, rematerialise=self.rematerialise)
            hidden_BTD = run.step(self.begun(params[stage], hidden_BTD), hidden_BTD)
        made_BTKD = self.slots(params, hidden_BTD)
        return tuple(made_BTKD[:, :, i] for i in range(self.heads))

    def begun(self, params: Any, hidden: Array) -> Array:
        """What a stage's attention reads."""
        return layer.normed(self.layer, params["attention_norm"], hidden)

    def outward(self, params: Any, term: int) -> dict:
        return {"head": params["head"]}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del target, term
        kernel_DV = head.params["head"]["kernel"]
        logits = jnp.einsum("...d,dv->...v", hidden, kernel_DV, preferred_element_type=jnp.float32)
        return rule_out(logits, self.sizes)

    def on_target(self, head: Head, target: CausalLM) -> InSlots:
        return InSlots(head, target.ends())


def _as_last_of(target: CausalLM, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the target's last layer where names and shapes are these, in float32; else these.

    A target without layers, as whoever asks for shapes alone may have it, leaves them as they are.
    """
    last = target.unstacked().params.get(f"layers_{target.config.num_layers - 1}")
    shapes = [jax.tree.map(jnp.shape, each) for each in (last, params)]
    if shapes[0] != shapes[1] or target.config.norm_offset:
        return params
    return jax.tree.map(lambda x: x.astype(jnp.float32), last)


class InSlots(OnTarget):
    """The slots beside the target whose embeddings they read, for decoding; the cache has a layer per stage."""

    def entered(self, features_BTF: Array) -> Array:
        return features_BTF

    def read(
        self, hidden_BTD: Array, tokens_BT: Array, cache: KVCache, *, positions_BT=None, mask_BTS=None
    ) -> tuple[Array, Array, KVCache]:
        config, params, kept = self.head.config, self.head.params, []
        for i, stage in enumerate(STAGES):
            if stage == "second":
                embedded_BTD = self.target.embedded(tokens_BT).astype(hidden_BTD.dtype)
                hidden_BTD = config.joined(params, hidden_BTD, embedded_BTD)
            own = replace(cache, keys=cache.keys[i : i + 1], values=cache.values[i : i + 1])
            given = (config.begun(params[stage], hidden_BTD), hidden_BTD, own, positions_BT, mask_BTS)
            hidden_BTD, own = layer.read(config.layer, params[stage], *given)
            kept.append(own)
        keys, values = (tuple(getattr(own, part)[0] for own in kept) for part in ("keys", "values"))
        return hidden_BTD, hidden_BTD, replace(kept[-1], keys=keys, values=values)

    def unembed(self, made: Array) -> Array:
        """Float32 logits [..., K, V] of all slots, the nearest first."""
        return self.head.logits(self.target, self.head.config.slots(self.head.params, made))

    def init_cache(self, batch_size: int, slots: int) -> KVCache:
        return layer.empty_cache(self.head.config.layer, batch_size, slots, self.head.dtype, layers=len(STAGES))


KIND = Amphista
