"""Gemma, Gemma 2, and the text models of Gemma 3."""

from dataclasses import dataclass
from typing import Any

from adaspec_jax.config.architectures import llama
from adaspec_jax.config.architectures.base import FULL, MANY, ROWS, SLIDING, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import Rope
from adaspec_jax.config.bounds import all_of, positive, within

# Of a config.json that lacks the keys.
ABSENT = llama.ABSENT | {
    "head_dim": 256,
    "num_key_value_heads": 16,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


@dataclass
class Gemma(Grouped):
    """Gemma-2B."""

    vocab_size: int = positive(256000, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(18, MANY)
    num_attention_heads: int = positive(8, MANY)
    num_key_value_heads: int = positive(1, MANY)
    head_dim: int = positive(256, WIDE)
    intermediate_size: int = positive(16384, WIDE)
    max_position_embeddings: int = positive(8192)
    rope_theta: float = positive(10000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gemma"

    CLASS = "GemmaForCausalLM"
    ABSENT = ABSENT


@dataclass
class Gemma2(Grouped):
    """Gemma-2-2B: a window in the first layer and in every second."""

    vocab_size: int = positive(256000, ROWS)
    hidden_size: int = positive(2304, WIDE)
    num_hidden_layers: int = positive(26, MANY)
    num_attention_heads: int = positive(8, MANY)
    num_key_value_heads: int = positive(4, MANY)
    head_dim: int = positive(256, WIDE)
    intermediate_size: int = positive(9216, WIDE)
    max_position_embeddings: int = positive(8192)
    rope_theta: float = positive(10000.0, 1e12)
    rope_scaling: Rope | None = None
    query_pre_attn_scalar: int = positive(256, WIDE)  # scores are divided by its root
    attn_logit_softcapping: float | None = positive(50.0, 1e6)
    final_logit_softcapping: float | None = positive(30.0, 1e6)
    sliding_window: int | None = positive(4096)
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: in turn
    hidden_activation: str | None = "gelu_pytorch_tanh"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gemma2"

    CLASS = "Gemma2ForCausalLM"
    NULL = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")
    ABSENT = ABSENT | {
        **{"num_key_value_heads": 4, "sliding_window": 4096},
        **{"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    }

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        return {"layer_types": tuple(FULL if i % 2 else SLIDING for i in range(self.num_layers))}


@dataclass
class Gemma3Text(Grouped):
    """Gemma-3-270M: five layers with a window to one without, each kind with a rotation of its own."""

    vocab_size: int = positive(262144, ROWS)
    hidden_size: int = positive(640, WIDE)
    num_hidden_layers: int = positive(18, MANY)
    num_attention_heads: int = positive(4, MANY)
    num_key_value_heads: int = positive(1, MANY)
    head_dim: int = positive(256, WIDE)
    intermediate_size: int = positive(2048, WIDE)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_local_base_freq: float = positive(10000.0, 1e12)  # of layers with a window, which are never stretched
    rope_scaling: Rope | None = None
    query_pre_attn_scalar: int = positive(256, WIDE)  # scores are divided by its root
    final_logit_softcapping: float | None = positive(None, 1e6)
    sliding_window: int | None = positive(512)
    sliding_window_pattern: int = positive(6, MANY)
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: every sliding_window_pattern-th is full
    hidden_activation: str | None = "gelu_pytorch_tanh"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gemma3_text"

    CLASS = "Gemma3ForCausalLM"
    NULL = ("sliding_window",)
    ABSENT = ABSENT | {
        **{"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096},
        **{"max_position_embeddings": 131072, "rope_theta": 1_000_000.0},
    }
    LOCAL = {"rope_theta": "rope_local_base_freq"}
    ALSO = {"sliding_window_pattern": "_sliding_window_pattern"}

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        every = self.sliding_window_pattern
        return {"layer_types": tuple(SLIDING if (i + 1) % every else FULL for i in range(self.num_layers))}
