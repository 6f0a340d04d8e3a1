"""EAGLE: a layer on the target's last hidden state and the next token's embedding guesses the next hidden state.

Li et al. 2024 (arXiv 2401.15077), as the released code has it: the hidden state is that after the final norm, the layer
has no norm before its attention, embeddings and output matrix are the target's and stay frozen. EAGLE-2 (2406.16858)
decodes with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.weights import Weight
from adaspec_jax.models.files.weights import linear as linear_rows
from adaspec_jax.models.heads.parts import layouts
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.layer import init_layer
from adaspec_jax.models.heads.parts.recurrent import Recurrent, linear
from adaspec_jax.models.heads.parts.stored import Stored

_BIAS = "fc.bias"


@dataclass(frozen=True, kw_only=True)
class Eagle(Recurrent):
    """The loss is `features` times a smooth L1 distance to the target's hidden states, and `laws` times a divergence.

    Weights, noise and a single step are the released code's; more steps train it on its own outputs.
    """

    name = "eagle"
    paper = "arXiv 2401.15077"

    features: float = 1.0
    laws: float = 0.1
    noise: float = 0.2  # width of the uniform noise on hidden states in training, at 512 tokens; else in proportion
    bias: bool = False  # of `fc`, for published heads that have one; vLLM leaves it out when it serves them

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del target, counts_V
        keys, size = jax.random.split(key, 2), self.sizes.hidden_size
        joint = linear(keys[0], 2 * size, size, self.sizes.initializer_range)
        if self.bias:
            joint["bias"] = jnp.zeros((size,), jnp.float32)
        return {"fc": joint, "layer": init_layer(self.layer, keys[1], size)}, None

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        joint = jnp.concatenate([embedded, hidden], axis=-1) @ params["fc"]["kernel"]
        if self.bias:
            joint += params["fc"]["bias"].reshape((1,) * (joint.ndim - 1) + (-1,))
        return joint, joint

    def outward(self, params, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)

    def hf_config(self) -> dict[str, Any]:
        said = {"architectures": ["EagleLlamaForCausalLM"]} | ({"bias": True} if self.bias else {})
        return layouts.llama_config(self.sizes) | said

    def table(self, shapes: Any) -> list[Weight]:
        return linear_rows("fc", "fc", bias=self.bias) + layouts.layer_rows("layers.0", "layer")

    def beside(self, head: Head) -> dict[str, np.ndarray]:
        """A bias of zeros: SGLang has one, at random where the file has none."""
        return {} if self.bias else {_BIAS: np.zeros((self.sizes.hidden_size,), head.dtype)}

    def tables_of(self, stored: Stored) -> None:
        layouts.drop_copy(stored, layouts.EMBEDDING)
        layouts.drop_copy(stored, layouts.MATRIX)
        if not self.bias and (bias := stored.tensors.pop(_BIAS, None)) is not None and np.any(bias.read()):
            raise UserError(f"{_BIAS} is not zero, and drafter.json says of no bias")

    @classmethod
    def published(cls, stored: Stored) -> Eagle:
        """As the released heads are; steps, noise and the loss are not to be read there."""
        if "speculators_model_type" in stored.config:
            raise UserError("config.json: EAGLE's heads in the format of the speculators library are not read here")
        bias = stored.tensors.get(_BIAS)
        return cls(
            sizes=layouts.llama_sizes(stored.config, stored.target), bias=bias is not None and bool(np.any(bias.read()))
        )


KIND = Eagle
