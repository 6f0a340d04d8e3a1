"""What differs between families, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.rotary import Llama3Scaling

OWNED = "adaspec_num_tokens"  # in the config.json of what was trained here: vocabulary rows that tokens own
ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class DecoderConfig:
    """A family and its sizes; equal configs compute the same function of equal parameters."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    parallel_residual: bool = False  # attention and MLP both read the layer's input
    shared_norm: bool = False  # and read it through one norm
    mlp: Literal["plain", "gated"] = "plain"
    activation: str = "gelu"
    learned_positions: bool = False  # a vector per position, added to the token's
    rotary_dim: int = 0  # of head_dim; the rest passes through
    rotary_interleaved: bool = False  # pairs (0, 1), (2, 3), ... instead of the two halves
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    qk_norm: bool = False  # every query and key head normalised before it is rotated
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    tie_embeddings: bool = False
    max_positions: int = 2048
    initializer_range: float = 0.02
    eos_token_id: int = -1  # -1: the config names none
    num_tokens: int | None = None  # vocabulary entries the tokenizer has; None becomes vocab_size
    attention: Literal["xla", "cudnn"] = "xla"  # kernel of calls without a cache
    attention_block: int = 0  # queries at once in "xla"; 0: as suits the backend
    rematerialise: bool = False  # the backward pass computes a layer's inside again instead of keeping it
    source: str = field(default="{}", compare=False, repr=False)  # config.json, so that unknown keys survive a save
    generation: str = field(default="null", compare=False, repr=False)  # generation_config.json; "null": there is none

    def __post_init__(self):
        if self.num_tokens is None:
            object.__setattr__(self, "num_tokens", self.vocab_size)
        if not 1 <= self.num_tokens <= self.vocab_size:
            raise UserError(f"num_tokens {self.num_tokens} must be between 1 and vocab_size {self.vocab_size}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f'unknown activation "{self.activation}"{did_you_mean(str(self.activation), ACTIVATIONS)}')
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise UserError(f"rotary size {self.rotary_dim} must be even and at most the head size {self.head_dim}")
        if self.shared_norm and not self.parallel_residual:
            raise UserError("a shared norm needs a parallel residual")
        if self.head_bias and self.tie_embeddings:
            raise UserError("a tied head has no bias")

    def hf_config(self) -> dict:
        """The config.json this config was read from, every key kept, and rows that tokens own where not all are."""
        return json.loads(self.source) | ({OWNED: self.num_tokens} if self.num_tokens < self.vocab_size else {})

    def owned(self) -> int:
        """Rows of the vocabulary that tokens own, as far as config.json says."""
        said = json.loads(self.source).get(OWNED)
        return said if isinstance(said, int) and 0 < said < self.vocab_size else self.vocab_size
