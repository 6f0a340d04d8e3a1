"""Families of before Llama: GPT-NeoX (Pythia), CodeGen and GPT-2."""

from dataclasses import dataclass

from adaspec_jax.config.architectures.base import MANY, ROWS, WIDE, Architecture
from adaspec_jax.config.architectures.rotary import Rope
from adaspec_jax.config.bounds import positive, share, within


@dataclass
class GPTNeoX(Architecture):
    """Pythia-31M."""

    vocab_size: int = positive(50304, ROWS)
    hidden_size: int = positive(256, WIDE)
    num_hidden_layers: int = positive(6, MANY)
    num_attention_heads: int = positive(8, MANY)
    intermediate_size: int = positive(1024, WIDE)
    max_position_embeddings: int = positive(2048)
    rotary_pct: float = share(0.25)
    rotary_emb_base: float = positive(10000.0, 1e12)
    rope_scaling: Rope | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = within(0, 1, 1e-5)
    use_parallel_residual: bool = True
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "gpt_neox"

    CLASS = "GPTNeoXForCausalLM"
    ROTARY = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}

    def mistake(self) -> str | None:
        return super().mistake() or self._odd("rotary_pct")


@dataclass
class CodeGen(Architecture):
    """CodeGen-350M."""

    vocab_size: int = positive(51200, ROWS)
    n_embd: int = positive(1024, WIDE)
    n_layer: int = positive(20, MANY)
    n_head: int = positive(16, MANY)
    n_inner: int | None = positive(None, WIDE)  # None: 4 * n_embd
    n_positions: int = positive(2048)
    rotary_dim: int = positive(32, WIDE)
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = within(0, 1, 1e-5)
    tie_word_embeddings: bool = False
    initializer_range: float = within(0, 1000, 0.02)
    model_type: str = "codegen"

    CLASS = "CodeGenForCausalLM"
    WIDTH = "n_embd"
    HEADS = "n_head"
    DEPTH = "n_layer"
    ABSENT = {"rotary_dim": 64}

    def mistake(self) -> str | None:
        return super().mistake() or (f"n_head {self.n_head} is not a multiple of 4" if self.n_head % 4 else None)


@dataclass
class GPT2(Architecture):
    """GPT-2 small."""

    vocab_size: int = positive(50257, ROWS)
    n_embd: int = positive(768, WIDE)
    n_layer: int = positive(12, MANY)
    n_head: int = positive(12, MANY)
    n_inner: int | None = positive(None, WIDE)  # None: 4 * n_embd
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
