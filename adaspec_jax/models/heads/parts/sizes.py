"""What of a target the shape of a head on it follows from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.rotary import Llama3Scaling


@dataclass(frozen=True)
class Sizes:
    """Of the target that a head belongs to: all that the head's own shape follows from."""

    vocab_size: int
    num_tokens: int  # vocabulary rows that tokens own
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    max_positions: int
    initializer_range: float

    @classmethod
    def of(cls, config: DecoderConfig) -> Sizes:
        sizes = cls(**{each.name: getattr(config, each.name) for each in dataclasses.fields(cls)})
        # A head's layer is Llama's, and so is the one stretch of its rotation.
        stretched = isinstance(config.rope_scaling, Llama3Scaling)
        return sizes if stretched else dataclasses.replace(sizes, rope_scaling=None)
