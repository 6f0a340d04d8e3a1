"""The families with experts."""

from dataclasses import dataclass
from typing import ClassVar

from adaspec_jax.config.architectures.base import MANY, ROWS, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import Rope
from adaspec_jax.config.bounds import positive, within


class Mixture(Grouped):
    """MLPs of experts, to a few of which a router gives each token."""

    EXPERTS: ClassVar[str] = "num_experts"
    num_experts_per_tok: int

    def mistake(self) -> str | None:
        chosen, experts = self.num_experts_per_tok, getattr(self, self.EXPERTS)
        too_many = f"num_experts_per_tok {chosen} is more than {self.EXPERTS} {experts}" if chosen > experts else None
        return super().mistake() or too_many


@dataclass
class Qwen3Moe(Mixture):
    """Qwen3-30B-A3B; `intermediate_size` is that of layers without experts, of which there are none."""

    vocab_size: int = positive(151936, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(48, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(4, MANY)
    head_dim: int | None = positive(128, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(6144, WIDE)
    moe_intermediate_size: int = positive(768, WIDE)
    num_experts: int = positive(128, MANY)
    num_experts_per_tok: int = positive(8, MANY)
    norm_topk_prob: bool = True
    max_position_embeddings: int = positive(40960)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = positive(None)  # of every layer
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "qwen3_moe"

    CLASS = "Qwen3MoeForCausalLM"
    NULL = ("sliding_window",)
    ALSO = {"num_experts": "num_local_experts"}
    ABSENT = {
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "head_dim": None,
        "norm_topk_prob": False,
        "rope_theta": 10_000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    }


@dataclass
class Mixtral(Mixture):
    """Mixtral-8x7B; `intermediate_size` is that of each expert."""

    vocab_size: int = positive(32000, ROWS)
    hidden_size: int = positive(4096, WIDE)
    num_hidden_layers: int = positive(32, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(8, MANY)
    head_dim: int | None = positive(None, WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(14336, WIDE)
    num_local_experts: int = positive(8, MANY)
    num_experts_per_tok: int = positive(2, MANY)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    sliding_window: int | None = positive(None)
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "mixtral"

    CLASS = "MixtralForCausalLM"
    EXPERTS = "num_local_experts"
    ALSO = {"num_local_experts": "num_experts"}
    ABSENT = {"num_key_value_heads": 8, "max_position_embeddings": 131072}
