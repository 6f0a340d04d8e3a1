"""Microsoft's Phi: 1, 1.5 and 2, and Phi-3 with Phi-4-mini."""

from dataclasses import dataclass

from adaspec_jax.config.architectures.base import MANY, ROWS, WIDE, Grouped
from adaspec_jax.config.architectures.rotary import LongRope, Rope
from adaspec_jax.config.bounds import positive, share, within


@dataclass
class Phi(Grouped):
    """Phi-1.5."""

    vocab_size: int = positive(51200, ROWS)
    hidden_size: int = positive(2048, WIDE)
    num_hidden_layers: int = positive(24, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int | None = positive(None, MANY)  # None: as many as query heads
    intermediate_size: int = positive(8192, WIDE)
    max_position_embeddings: int = positive(2048)
    partial_rotary_factor: float = share(0.5)
    rope_theta: float = positive(10000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "phi"

    CLASS = "PhiForCausalLM"

    def mistake(self) -> str | None:
        return super().mistake() or self._odd("partial_rotary_factor")


@dataclass
class Phi3(Grouped):
    """Phi-3-mini-4k. Phi-4-mini rotates three quarters of a head, and has a factor per feature for longer texts."""

    vocab_size: int = positive(32064, ROWS)
    hidden_size: int = positive(3072, WIDE)
    num_hidden_layers: int = positive(32, MANY)
    num_attention_heads: int = positive(32, MANY)
    num_key_value_heads: int = positive(32, MANY)
    intermediate_size: int = positive(8192, WIDE)
    max_position_embeddings: int = positive(4096)
    original_max_position_embeddings: int = positive(4096)
    rope_theta: float = positive(10000.0, 1e12)
    partial_rotary_factor: float = share(1.0)
    rope_scaling: Rope | None = None
    sliding_window: int | None = positive(2047)  # of every layer
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "phi3"

    CLASS = "Phi3ForCausalLM"
    NULL = ("sliding_window",)
    ABSENT = {"sliding_window": None}
    STRETCHES = {"longrope": LongRope, "su": LongRope, "yarn": LongRope}  # as its first files call it

    def mistake(self) -> str | None:
        return super().mistake() or self._odd("partial_rotary_factor") or self._not_a_factor_each()

    def _not_a_factor_each(self) -> str | None:
        pairs = int(self.hidden_size // self.num_attention_heads * self.partial_rotary_factor) // 2
        for key in ("short_factor", "long_factor"):
            said = getattr(self.rope_scaling, key, None)
            if said is not None and len(said) != pairs:
                return f"rope_scaling.{key} has {len(said)} factors, and {pairs} pairs of a head's features are turned"
        return None
