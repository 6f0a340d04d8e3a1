"""EAGLE-3: a layer on three of the target's hidden states, trained on its own outputs, over a vocabulary of its own.

Li et al. 2025 (arXiv 2503.01840), as the released code has it: the fused hidden states are the residual, embeddings and
hidden states are normed apart and lie side by side, norm and output matrix at the end are the head's own, and the next
step reads its output before that norm. EAGLE-3.1's two switches are `norm_fused` and `norm_output`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.layer import init_layer, normed, unit_norm
from adaspec_jax.models.heads.parts.recurrent import Recurrent, linear

_OUTSIDE = -1e9  # of a token that is not guessed: probability zero, and finite in float32


@dataclass(frozen=True, kw_only=True)
class Eagle3(Recurrent):
    """Seven steps weighted 0.8 to the power of the step, as the released code has them.

    `vocabulary`: tokens that it guesses among, the most frequent of the training text; 0: all of the target's.
    `taps`: layers whose outputs it reads, ascending; (): those of layers 1, L / 2 - 1 and L - 4 of L >= 6, else first,
    middle and last [ours].
    """

    name = "eagle3"
    paper = "arXiv 2503.01840"

    steps: int = 7
    decay: float = 0.8
    vocabulary: int = 0
    taps: tuple[int, ...] = ()
    norm_fused: bool = False
    norm_output: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        count, sizes = self.sizes.num_layers, self.sizes
        if outside := [tap for tap in self.taps if not 0 <= tap < count]:
            raise ValueError(f"taps has {outside[0]}; the target has layers 0 to {count - 1}")
        if len(set(self.taps)) != len(self.taps) or tuple(sorted(self.taps)) != self.taps:
            raise ValueError(f"taps {self.taps} must be ascending, each once")
        if not 0 <= self.vocabulary <= sizes.num_tokens:
            raise ValueError(f"vocabulary is {self.vocabulary}; the target has {sizes.num_tokens} tokens")

    @property
    def layers(self) -> tuple[int, ...]:
        count = self.sizes.num_layers
        if self.taps:
            return self.taps
        return (1, count // 2 - 1, count - 4) if count >= 6 else tuple(sorted({0, (count - 1) // 2, count - 1}))

    @property
    def own_vocabulary(self) -> bool:
        return bool(self.vocabulary) and self.vocabulary < self.sizes.vocab_size

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """Tables are {"kept": [V'] the target's ids, ascending} where the vocabulary is its own."""
        del target
        keys, size, spread = jax.random.split(key, 3), self.sizes.hidden_size, self.sizes.initializer_range
        params = {
            "fc": linear(keys[0], len(self.layers) * size, size, spread),
            "token_norm": unit_norm(size),
            "hidden_norm": unit_norm(size),
            "layer": init_layer(self.layer, keys[1], 2 * size),
            "final_norm": unit_norm(size),
            "head": linear(keys[2], size, self.vocabulary or self.sizes.vocab_size, spread),
        }
        if self.norm_fused:
            params |= {f"fused_norm_{i}": unit_norm(size) for i in range(len(self.layers))}
        if not self.own_vocabulary:
            return params, None
        frequent_V = np.argsort(-counts_V[: self.sizes.num_tokens], kind="stable")
        return params, {"kept": np.sort(frequent_V[: self.vocabulary]).astype(np.int32)}

    def entered(self, params, features: Array) -> Array:
        if self.norm_fused:
            parts = jnp.split(features, len(self.layers), axis=-1)
            parts = [normed(self.layer, params[f"fused_norm_{i}"], part) for i, part in enumerate(parts)]
            features = jnp.concatenate(parts, axis=-1)
        return features @ params["fc"]["kernel"]

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        parts = normed(self.layer, params["token_norm"], embedded), normed(self.layer, params["hidden_norm"], hidden)
        return jnp.concatenate(parts, axis=-1), hidden

    def handed_on(self, params, hidden: Array) -> Array:
        return normed(self.layer, params["final_norm"], hidden) if self.norm_output else hidden

    def outward(self, params, term: int) -> dict:
        return {name: params[name] for name in ("final_norm", "head")}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del target, term
        hidden = normed(self.layer, head.params["final_norm"], hidden)
        kernel_DV = head.params["head"]["kernel"]
        logits = jnp.einsum("...d,dv->...v", hidden, kernel_DV, preferred_element_type=jnp.float32)
        if not self.own_vocabulary and self.sizes.num_tokens < self.sizes.vocab_size:
            owned_V = np.arange(self.sizes.vocab_size) < self.sizes.num_tokens
            logits += np.where(owned_V, 0, _OUTSIDE).astype(np.float32).reshape((1,) * (logits.ndim - 1) + (-1,))
        return logits

    def among(self, head: Head, logits: Array) -> Array:
        return jnp.take(logits, head.tables["kept"], axis=-1) if self.own_vocabulary else logits

    def spread(self, head: Head, logits: Array) -> Array:
        if not self.own_vocabulary:
            return logits
        everything = jnp.full((*logits.shape[:-1], self.sizes.vocab_size), _OUTSIDE, logits.dtype)
        return everything.at[..., head.tables["kept"]].set(logits, unique_indices=True, indices_are_sorted=True)


KIND = Eagle3
