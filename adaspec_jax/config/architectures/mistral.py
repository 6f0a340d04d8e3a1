"""Mistral, and Ministral, which says of each layer whether it attends to a window."""

from dataclasses import dataclass
from typing import Any

from adaspec_jax.config.architectures import llama
from adaspec_jax.config.architectures.base import FULL, MANY, ROWS, SLIDING, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import Rope
from adaspec_jax.config.bounds import all_of, positive, within

# Of a config.json that lacks the keys.
ABSENT = llama.ABSENT | {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096}


@dataclass
class Mistral(Grouped):
    """Mistral-7B-v0.3; its first version has a `vocab_size` of 32000, a `rope_theta` of 1e4 and a window of 4096."""

    vocab_size: int = positive(32768, ROWS)
    hidden_size: int = positive(4096, WIDE)
    num_hidden_layers: int = positive(32, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(14336, WIDE)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Rope | None = None
    sliding_window: int | None = positive(None)  # of every layer
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "mistral"

    CLASS = "MistralForCausalLM"
    NULL = ("sliding_window",)
    ABSENT = ABSENT


@dataclass
class Ministral(Grouped):
    """Ministral-8B, whose windows are as long as its texts may be."""

    vocab_size: int = positive(131072, ROWS)
    hidden_size: int = positive(4096, WIDE)
    num_hidden_layers: int = positive(36, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int | None = positive(128, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(12288, WIDE)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(100000000.0, 1e12)
    rope_scaling: Rope | None = None
    sliding_window: int | None = positive(32768)
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: a window in every layer
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "ministral"

    CLASS = "MinistralForCausalLM"
    NULL = ("sliding_window",)
    ABSENT = ABSENT | {"head_dim": None}

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        return {"layer_types": (FULL if self.sliding_window is None else SLIDING,) * self.num_layers}
