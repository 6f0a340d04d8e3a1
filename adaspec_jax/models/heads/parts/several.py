"""Heads beside each other: the i-th, from 0, guesses the token i places after the one that follows the target's next.

Each has residual blocks and an output matrix of its own, which begins as the target's. What a head reads beside the
target's hidden state is its kind's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.texts import following
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.unowned_rows import rule_out


@dataclass(frozen=True, kw_only=True)
class Several(Kind):
    """`heads` of `blocks` residual blocks; the loss of head i weighs `decay` to the power i."""

    heads: int = 4
    blocks: int = 1
    decay: float = 0.8
    bias: bool = True  # of the blocks

    def __post_init__(self) -> None:
        check_knobs(self, counts=("heads", "blocks"), shares=("decay",))
        if self.prefixed:
            layer.layer_config(self)  # which refuses sizes that it cannot have

    @property
    def guesses(self) -> int:
        return self.heads

    @property
    def one_output(self) -> bool:
        return False

    @property
    def prefixed(self) -> bool:
        """Whether the target's hidden states pass a decoder layer of the head's own first."""
        return False

    def pieces(self, i: int) -> int:
        """How many embedded tokens head i reads beside the hidden state: those from t + 1 on."""
        del i
        return 0

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del counts_V
        size, keys = self.sizes.hidden_size, jax.random.split(key, self.heads + 1)
        matrix_DV = target.output_matrix().astype(jnp.float32) * target.config.logit_scale
        params: dict[str, Any] = {}
        for i in range(self.heads):
            wide = (1 + self.pieces(i)) * size
            part = {f"block_{j}": self._block(size if j else wide) for j in range(self.blocks)}
            if wide != size:  # there is no identity to add to: another matrix takes its place
                spread = self.sizes.initializer_range
                kernel = spread * jax.random.normal(keys[i], (wide, size), jnp.float32)
                # At first the hidden state alone passes, so that a head begins as the target's own next guess.
                part["skip"] = {"kernel": kernel.at[:size].set(jnp.eye(size))}
            params[f"head_{i}"] = part | {"head": {"kernel": matrix_DV}}
        if self.prefixed:
            params["prefix"] = layer.init_layer(layer.layer_config(self), keys[-1], size)
            params["prefix_norm"] = layer.unit_norm(size)
        return params, None

    def _block(self, wide: int) -> dict[str, Array]:
        size = self.sizes.hidden_size
        weights = {"kernel": jnp.zeros((wide, size), jnp.float32)}
        return weights | ({"bias": jnp.zeros((size,), jnp.float32)} if self.bias else {})

    def mixed(self, params: Any, i: int, inputs: Array) -> Array:
        """[..., D], which head i's output matrix reads, of its inputs [..., (1 + pieces) D]."""
        part, hidden = params[f"head_{i}"], inputs
        for j in range(self.blocks):
            block = part[f"block_{j}"]
            added = hidden @ block["kernel"]
            if self.bias:
                added += block["bias"].reshape((1,) * (added.ndim - 1) + (-1,))
            added = jax.nn.silu(added)
            kept = hidden @ part["skip"]["kernel"] if j == 0 and "skip" in part else hidden
            hidden = kept + added
        return hidden

    def prefix(self, params: Any, features_BTD: Array, segments_BT: Array | None) -> Array:
        """The target's hidden states, through the layer of the head's own where it has one; whole texts."""
        if not self.prefixed:
            return features_BTD
        config = layer.layer_config(self)
        run = layer.Unrolled(config, params["prefix"], segments_BT, rematerialise=self.rematerialise)
        return run.step(layer.normed(config, params["prefix_norm"], features_BTD), features_BTD)

    @property
    def terms(self) -> tuple[Term, ...]:
        return tuple(Term(i + 1, self.decay**i) for i in range(self.heads))

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        pieces, made = [self.prefix(head.params, features_BTF, segments_BT)], []
        for i in range(self.heads):
            while len(pieces) <= self.pieces(i):
                embedded_BTD = jax.lax.stop_gradient(target.embedded(following(tokens_BT, len(pieces))))
                pieces.append(embedded_BTD.astype(pieces[0].dtype))
            inputs = jnp.concatenate(pieces[: 1 + self.pieces(i)], axis=-1)
            made.append(self.mixed(head.params, i, inputs))
        return tuple(made)

    def outward(self, params: Any, term: int) -> dict:
        return {f"head_{term}": {"head": params[f"head_{term}"]["head"]}}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del target
        kernel_DV = head.params[f"head_{term}"]["head"]["kernel"]
        logits = jnp.einsum("...d,dv->...v", hidden, kernel_DV, preferred_element_type=jnp.float32)
        return rule_out(logits, self.sizes)

    def on_target(self, head: Head, target: CausalLM) -> Beside:
        return Beside(head, target.ends())


class Beside(WithTarget):
    """Several heads beside the target whose embeddings they may read, for decoding."""

    @property
    def prefixed(self) -> bool:
        return self.head.config.prefixed

    def pieces(self, i: int) -> int:
        return self.head.config.pieces(i)

    @property
    def reads_guesses(self) -> bool:
        """Whether some head reads more than the target's last hidden state."""
        return self.prefixed or any(self.pieces(i) for i in range(self.guesses))

    def embedded(self, tokens: Array) -> Array:
        return self.target.embedded(tokens)

    def prefix(self, features_BTD: Array, cache: KVCache) -> tuple[Array, KVCache]:
        """(what heads read in place of hidden states, the longer cache of their own layer)."""
        config, params = layer.layer_config(self.head.config), self.head.params
        inputs_BTD = layer.normed(config, params["prefix_norm"], features_BTD)
        return layer.read(config, params["prefix"], inputs_BTD, features_BTD, cache)

    def guess(self, i: int, inputs: Array) -> Array:
        """Head i's float32 logits [..., V] of its inputs [..., (1 + pieces) D]."""
        config, params = self.head.config, self.head.params
        return config.logits(self.head, self.target, config.mixed(params, i, inputs), i)
