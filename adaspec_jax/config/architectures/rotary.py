"""How rotary frequencies are stretched for longer texts: a dataclass per kind, in config.json's keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from adaspec_jax.config.bounds import all_positive, one_of, positive

CONTEXT = "adaspec_context"  # in config.json it stands beside the rotation, not in it


@dataclass
class Rope:
    """One of the kinds of `ROPES`; `rope_type` says which."""


@dataclass
class Llama3Rope(Rope):
    """How Llama 3.2 stretches its rotary frequencies (`factor` 8 in Llama 3.1); `rope_type` "default" does not."""

    factor: float = positive(32.0, 1e6)
    low_freq_factor: float = positive(1.0, 1e6)
    high_freq_factor: float = positive(4.0, 1e6)
    original_max_position_embeddings: int = positive(8192)
    rope_type: str = one_of("default", "llama3", default="llama3")


@dataclass
class LinearRope(Rope):
    """All frequencies divided by a factor, as in Gemma 3 of 4B and more."""

    factor: float = positive(8.0, 1e6)
    rope_type: str = one_of("linear")


@dataclass
class DynamicRope(Rope):
    """A base that grows with the text, taken here for texts of `adaspec_context` tokens."""

    factor: float = positive(2.0, 1e6)
    adaspec_context: int | None = positive(None)  # None: max_position_embeddings
    rope_type: str = one_of("dynamic")


@dataclass
class YarnRope(Rope):
    """YaRN, as Qwen2.5 and Qwen3 have it for texts beyond 32,768 tokens; what is None is as the paper has it."""

    factor: float | None = positive(4.0, 1e6)  # None: max_position_embeddings over the original ones
    original_max_position_embeddings: int | None = positive(32768)  # None: max_position_embeddings
    beta_fast: float | None = positive(None, 1e6)
    beta_slow: float | None = positive(None, 1e6)
    attention_factor: float | None = positive(None, 1e6)
    mscale: float | None = positive(None, 1e6)
    mscale_all_dim: float | None = positive(None, 1e6)
    truncate: bool | None = None
    rope_type: str = one_of("yarn")


@dataclass
class LongRope(Rope):
    """A factor per feature, one list for texts within the original context and one for longer ones (Phi-3, Phi-4)."""

    short_factor: tuple[float, ...] = all_positive()
    long_factor: tuple[float, ...] = all_positive()
    factor: float | None = positive(None, 1e6)
    original_max_position_embeddings: int | None = positive(None)
    attention_factor: float | None = positive(None, 1e6)
    adaspec_context: int | None = positive(None)  # the texts it is for; None: those within the original context
    rope_type: str = one_of("longrope")


ROPES: Mapping[str, type[Rope]] = {
    "linear": LinearRope,
    "dynamic": DynamicRope,
    "yarn": YarnRope,
    "longrope": LongRope,
    "llama3": Llama3Rope,
}
