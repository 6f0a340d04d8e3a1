"""EAGLE: a layer on the target's last hidden state and the next token's embedding guesses the next hidden state.

Li et al. 2024 (arXiv 2401.15077), as the released code has it: the hidden state is that after the final norm, the layer
has no norm before its attention, embeddings and output matrix are the target's and stay frozen. EAGLE-2 (2406.16858)
decodes with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.layer import init_layer
from adaspec_jax.models.heads.parts.recurrent import Recurrent, linear


@dataclass(frozen=True, kw_only=True)
class Eagle(Recurrent):
    """The loss is `features` times a smooth L1 distance to the target's hidden states, and `laws` times a divergence.

    Weights, noise and a single step are the released code's; more steps train it on its own outputs.
    """

    name = "eagle"
    paper = "arXiv 2401.15077"

    features: float = 1.0
    laws: float = 0.1
    noise: float = (
        0.2  # width of the uniform noise on hidden states in training, at 512 tokens; in proportion elsewhere
    )

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del target, counts_V
        keys, size = jax.random.split(key, 2), self.sizes.hidden_size
        joint = linear(keys[0], 2 * size, size, self.sizes.initializer_range)
        return {"fc": joint, "layer": init_layer(self.layer, keys[1], size)}, None

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        joint = jnp.concatenate([embedded, hidden], axis=-1) @ params["fc"]["kernel"]
        return joint, joint

    def outward(self, params, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)


KIND = Eagle
