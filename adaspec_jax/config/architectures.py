"""A dataclass per model family, in Hugging Face's config.json keys; the defaults are a small well-known model.

A config carries them so that everything about a run is known before anything is downloaded. Annotations stay real
types, and nothing here imports jax: see `experiment.py`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from adaspec_jax.config.bounds import one_of, positive, share, within

_ROWS, _WIDE, _MANY = 2**24, 2**20, 2**16  # the most of a vocabulary, of features, and of layers or heads


class Architecture:
    """What a family's dataclass offers: its config.json, and what cannot work in it."""

    CLASS: ClassVar[str]  # as transformers calls it
    WIDTH: ClassVar[str] = "hidden_size"
    HEADS: ClassVar[str] = "num_attention_heads"
    DEPTH: ClassVar[str] = "num_hidden_layers"

    def hf_config(self) -> dict[str, Any]:
        """The config.json of this architecture; what is None follows from the rest, and is left out."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return given | {"architectures": [self.CLASS]}

    @property
    def num_layers(self) -> int:
        return getattr(self, self.DEPTH)

    def mistake(self) -> str | None:
        """What cannot work, in a line that names the keys; None where all is well."""
        return self._not_multiple(self.WIDTH, self.HEADS)

    def _not_multiple(self, whole: str, part: str) -> str | None:
        a, b = getattr(self, whole), getattr(self, part)
        return f"{whole} {a} is not a multiple of {part} {b}" if a % b else None

    def _odd(self, share: str) -> str | None:
        """Of a head's features so many are turned, in pairs."""
        turned = int(getattr(self, self.WIDTH) // getattr(self, self.HEADS) * getattr(self, share))
        return f"{share} turns {turned} features of a head, and pairs are needed" if turned % 2 else None


@dataclass
class GPTNeoX(Architecture):
    """Pythia-31M."""

    vocab_size: int = positive(50304, _ROWS)
    hidden_size: int = positive(256, _WIDE)
    num_hidden_layers: int = positive(6, _MANY)
    num_attention_heads: int = positive(8, _MANY)
    intermediate_size: int = positive(1024, _WIDE)
    max_position_embeddings: int = positive(2048)
    rotary_pct: float = share(0.25)
    rotary_emb_base: float = positive(10000.0, 1e12)
    hidden_act: str = "gelu"
    layer_norm_eps: float = within(0, 1, 1e-5)
    use_parallel_residual: bool = True
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gpt_neox"

    CLASS = "GPTNeoXForCausalLM"

    def mistake(self) -> str | None:
        return super().mistake() or self._odd("rotary_pct")


@dataclass
class CodeGen(Architecture):
    """CodeGen-350M."""

    vocab_size: int = positive(51200, _ROWS)
    n_embd: int = positive(1024, _WIDE)
    n_layer: int = positive(20, _MANY)
    n_head: int = positive(16, _MANY)
    n_inner: int | None = positive(None, _WIDE)  # None: 4 * n_embd
    n_positions: int = positive(2048)
    rotary_dim: int = positive(32, _WIDE)
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "codegen"

    CLASS = "CodeGenForCausalLM"
    WIDTH = "n_embd"
    HEADS = "n_head"
    DEPTH = "n_layer"

    def mistake(self) -> str | None:
        return super().mistake() or (f"n_head {self.n_head} is not a multiple of 4" if self.n_head % 4 else None)


@dataclass
class GPT2(Architecture):
    """GPT-2 small."""

    vocab_size: int = positive(50257, _ROWS)
    n_embd: int = positive(768, _WIDE)
    n_layer: int = positive(12, _MANY)
    n_head: int = positive(12, _MANY)
    n_inner: int | None = positive(None, _WIDE)  # None: 4 * n_embd
    n_positions: int = positive(1024)
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gpt2"

    CLASS = "GPT2LMHeadModel"
    WIDTH = "n_embd"
    HEADS = "n_head"
    DEPTH = "n_layer"


class Grouped(Architecture):
    """Query heads in groups that share keys and values; heads may have a size of their own."""

    def mistake(self) -> str | None:
        own_size = getattr(self, "head_dim", None) is not None
        grouped = self._not_multiple(self.HEADS, "num_key_value_heads") if self.num_key_value_heads else None
        return (None if own_size else super().mistake()) or grouped


@dataclass
class Phi(Grouped):
    """Phi-1.5."""

    vocab_size: int = positive(51200, _ROWS)
    hidden_size: int = positive(2048, _WIDE)
    num_hidden_layers: int = positive(24, _MANY)
    num_attention_heads: int = positive(32, _MANY)
    num_key_value_heads: int | None = positive(None, _MANY)  # None: as many as query heads
    intermediate_size: int = positive(8192, _WIDE)
    max_position_embeddings: int = positive(2048)
    partial_rotary_factor: float = share(0.5)
    rope_theta: float = positive(10000.0, 1e12)
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "phi"

    CLASS = "PhiForCausalLM"

    def mistake(self) -> str | None:
        return super().mistake() or self._odd("partial_rotary_factor")


@dataclass
class Llama3Rope:
    """How Llama 3.2 stretches its rotary frequencies (`factor` 8 in Llama 3.1); `rope_type` "default" does not."""

    factor: float = positive(32.0, 1e6)
    low_freq_factor: float = positive(1.0, 1e6)
    high_freq_factor: float = positive(4.0, 1e6)
    original_max_position_embeddings: int = positive(8192)
    rope_type: str = one_of("default", "llama3", default="llama3")


@dataclass
class Llama(Grouped):
    """Llama-3.2-1B. Llama 2 has the `rope_type` "default", `rope_theta` 1e4 and as many key heads as query heads."""

    vocab_size: int = positive(128256, _ROWS)
    hidden_size: int = positive(2048, _WIDE)
    num_hidden_layers: int = positive(16, _MANY)
    num_attention_heads: int = positive(32, _MANY)
    num_key_value_heads: int = positive(8, _MANY)
    head_dim: int | None = positive(None, _WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(8192, _WIDE)
    max_position_embeddings: int = positive(131072)
    rope_theta: float = positive(500000.0, 1e12)
    rope_scaling: Llama3Rope = field(default_factory=Llama3Rope)
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-5)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "llama"

    CLASS = "LlamaForCausalLM"

    def hf_config(self) -> dict[str, Any]:
        return super().hf_config() | ({"rope_scaling": None} if self.rope_scaling.rope_type == "default" else {})


@dataclass
class Qwen2(Grouped):
    """Qwen2.5-0.5B."""

    vocab_size: int = positive(151936, _ROWS)
    hidden_size: int = positive(896, _WIDE)
    num_hidden_layers: int = positive(24, _MANY)
    num_attention_heads: int = positive(14, _MANY)
    num_key_value_heads: int = positive(2, _MANY)
    head_dim: int | None = positive(None, _WIDE)  # None: hidden_size / num_attention_heads
    intermediate_size: int = positive(4864, _WIDE)
    max_position_embeddings: int = positive(32768)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Llama3Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "qwen2"

    CLASS = "Qwen2ForCausalLM"


@dataclass
class Qwen3(Grouped):
    """Qwen3-0.6B."""

    vocab_size: int = positive(151936, _ROWS)
    hidden_size: int = positive(1024, _WIDE)
    num_hidden_layers: int = positive(28, _MANY)
    num_attention_heads: int = positive(16, _MANY)
    num_key_value_heads: int = positive(8, _MANY)
    head_dim: int = positive(128, _WIDE)
    intermediate_size: int = positive(3072, _WIDE)
    max_position_embeddings: int = positive(40960)
    rope_theta: float = positive(1000000.0, 1e12)
    rope_scaling: Llama3Rope | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = within(0, 1, 1e-6)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "qwen3"

    CLASS = "Qwen3ForCausalLM"
