"""Llama, and who is Llama but for a few keys: OLMo 2, SmolLM3 and Granite."""

from dataclasses import dataclass, field
from typing import Any

from adaspec_jax.config.architectures.base import FULL, MANY, ROWS, SLIDING, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import Llama3Rope, Rope
from adaspec_jax.config.bounds import all_of, positive, within

# Of a config.json that lacks the keys.
ABSENT = {"max_position_embeddings": 2048, "rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}


@dataclass
class Llama(Grouped):
    """Llama-3.2-1B. Llama 2 has the `rope_type` "default", `rope_theta` 1e4 and as many key heads as query heads."""

    vocab_size: int = positive(128256, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(16, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(8192, WIDE)
    max_position_embeddings: int = positive(131072)
    rope_theta: float = positive(500000.0, 1e12)
    rope_scaling: Rope | None = field(default_factory=Llama3Rope)
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "llama"

    CLASS = "LlamaForCausalLM"
    ABSENT = ABSENT

    def hf_config(self) -> dict[str, Any]:
        return super().hf_config() | ({"rope_scaling": None} if self._plain else {})

    @property
    def _plain(self) -> bool:
        return getattr(self.rope_scaling, "rope_type", "default") == "default"


@dataclass
class Olmo2(Grouped):
    """OLMo-2-1B."""

    vocab_size: int = positive(100352, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(16, MANY)
    num_attention_heads: int = positive(16, MANY)
    num_key_value_heads: int = positive(16, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(8192, WIDE)
    max_position_embeddings: int = positive(4096)
    rope_theta: float = positive(500000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "olmo2"

    CLASS = "Olmo2ForCausalLM"
    ABSENT = ABSENT | {"rms_norm_eps": 1e-5}


@dataclass
class SmolLM3(Grouped):
    """SmolLM3-3B: every fourth layer rotates nothing."""

    vocab_size: int = positive(128256, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(36, MANY)
    num_attention_heads: int = positive(16, MANY)
    num_key_value_heads: int = positive(4, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(11008, WIDE)
    max_position_embeddings: int = positive(65536)
    rope_theta: float = positive(5000000.0, 1e12)
    rope_scaling: Rope | None = None
    no_rope_layer_interval: int = positive(4, MANY)
    no_rope_layers: tuple[int, ...] | None = all_of(0, 1)  # 1: it rotates; None: by no_rope_layer_interval
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = positive(None)
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: windows, if any, where nothing rotates
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "smollm3"

    CLASS = "SmolLM3ForCausalLM"
    ABSENT = ABSENT | {
        **{"num_key_value_heads": 4, "max_position_embeddings": 32768},
        **{"rope_theta": 2_000_000.0, "tie_word_embeddings": True},
    }

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        every, said = self.no_rope_layer_interval, self.no_rope_layers
        rotates = tuple(int((i + 1) % every != 0) for i in range(self.num_layers))
        slides = self.use_sliding_window and self.sliding_window is not None
        kinds = tuple(SLIDING if slides and not turns else FULL for turns in (rotates if said is None else said))
        return {"no_rope_layers": rotates, "layer_types": kinds}


@dataclass
class Granite(Grouped):
    """Granite-3.3-2B."""

    vocab_size: int = positive(49159, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(40, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(8192, WIDE)
    max_position_embeddings: int = positive(131072)
    rope_theta: float = positive(10000000.0, 1e12)
    rope_scaling: Rope | None = None
    embedding_multiplier: float = positive(12.0, 1e6)
    attention_multiplier: float = positive(0.015625, 1e6)
    residual_multiplier: float = positive(0.22, 1e6)
    logits_scaling: float = positive(8.0, 1e6)
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "granite"

    CLASS = "GraniteForCausalLM"
    ABSENT = ABSENT | dict.fromkeys(
        ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"), 1.0
    )
