"""Falcon: a memory and a decoder layer on the target's hidden states guess a block of tokens in one pass.

Gao et al. 2024 (arXiv 2412.12639): the next token's embedding and the target's last hidden state, side by side, go
through an LSTM of two layers into a decoder layer with no norm before its attention, whose entries see each other
within a block; embeddings and output matrix are the target's and stay frozen. It is trained by coupled sequential
glancing distillation (`training/objectives/glancing.py`).

What the released code has otherwise: its LSTM takes the batch for the time, so that with one text at a time, the only
number that its loss can have, nothing is remembered from one token to the next; here the memory is the paper's, along
the text. Its blocks begin at every k-th token of a text in training, and in decoding wherever the last round ended;
here every token ends a block in both [ours]. It drops out a tenth between the LSTM's layers; here nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts import lstm
from adaspec_jax.models.heads.parts.coupled import Coupled
from adaspec_jax.models.heads.parts.layer import init_layer
from adaspec_jax.models.heads.parts.recurrent import linear


@dataclass(frozen=True, kw_only=True)
class Falcon(Coupled):
    """`features` times a smooth L1 distance to the target's hidden states, and `laws` times a divergence.

    Blocks of two, weights, noise and the shares that are shown, from `glance` to `glance_end`, are the released
    code's. So is a single step; more train it on its own outputs [ours].
    """

    name = "falcon"
    paper = "arXiv 2412.12639"

    features: float = 1.0
    laws: float = 0.1
    noise: float = 0.2  # width of the uniform noise on hidden states in training, at 512 tokens; else in proportion
    glance: float = 0.45  # of what it would guess wrong, how much is shown as training begins; 0 and 0: nothing
    glance_end: float = 0.1  # and as it ends

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("glance", "glance_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and at most 1")

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del target, counts_V
        keys, size = jax.random.split(key, 3), self.hidden_size
        memory = lstm.init_lstm(keys[0], 2 * size, size, self.memories)
        params = {"memory": memory, "layer": init_layer(self.layer, keys[1], size)}
        if self.linear:
            params["fc"] = linear(keys[2], 2 * size, size, self.sizes.initializer_range)
        return params, None


KIND = Falcon
