"""Qwen2, 2.5 and 3."""

from dataclasses import dataclass
from typing import Any

from adaspec_jax.config.architectures.base import FULL, MANY, ROWS, SLIDING, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import Rope
from adaspec_jax.config.bounds import all_of, not_negative, positive, within

_ABSENT = {"num_key_value_heads": 32, "rope_theta": 10_000.0, "tie_word_embeddings": False, "sliding_window": 4096}


class Windowed(Grouped):
    """Layers from one on may attend to a window."""

    NULL = ("sliding_window",)
    use_sliding_window: bool
    sliding_window: int | None
    max_window_layers: int | None

    def by_number(self) -> dict[str, tuple[Any, ...]]:
        first = 28 if self.max_window_layers is None else self.max_window_layers
        slides = self.use_sliding_window and self.sliding_window is not None
        kinds = tuple(SLIDING if slides and i >= first else FULL for i in range(self.num_layers))
        return {"layer_types": kinds}


@dataclass
class Qwen2(Windowed):
    """Qwen2.5-0.5B."""

    vocab_size: int = positive(151936, ROWS)
    hidden_size: int = positive(896, WIDE)
    num_hidden_layers: int = positive(24, MANY)
    num_attention_heads: int = positive(14, MANY)
    num_key_value_heads: int = positive(2, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(4864, WIDE)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = positive(None)
    max_window_layers: int | None = not_negative(None)  # None: 28; windows begin behind so many layers
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: by max_window_layers
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "qwen2"

    CLASS = "Qwen2ForCausalLM"
    ABSENT = _ABSENT


@dataclass
class Qwen3(Windowed):
    """Qwen3-0.6B."""

    vocab_size: int = positive(151936, ROWS)
    hidden_size: int = positive(1024, WIDE)
    num_hidden_layers: int = positive(28, MANY)
    num_attention_heads: int = positive(16, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int = positive(128, WIDE)
    intermediate_size: int = positive(3072, WIDE)
    max_position_embeddings: int = positive(40960)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = positive(None)
    max_window_layers: int | None = not_negative(None)  # None: 28; windows begin behind so many layers
    layer_types: tuple[str, ...] | None = all_of(FULL, SLIDING)  # None: by max_window_layers
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "qwen3"

    CLASS = "Qwen3ForCausalLM"
    ABSENT = _ABSENT | {"max_position_embeddings": 32768}
