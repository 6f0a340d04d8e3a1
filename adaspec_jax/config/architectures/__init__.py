"""A dataclass per model family, in Hugging Face's config.json keys; the defaults are a small well-known model.

A config carries them so that everything about a run is known before anything is downloaded. Annotations stay real
types, and nothing here imports jax: see `experiment.py`. A family that has none is `Described`, by its config.json.
"""

from collections.abc import Mapping
from typing import Any

from adaspec_jax.config.architectures.base import Architecture, Grouped
from adaspec_jax.config.architectures.gemma import Gemma, Gemma2, Gemma3Text
from adaspec_jax.config.architectures.gpt import GPT2, CodeGen, GPTNeoX
from adaspec_jax.config.architectures.llama import Granite, Llama, Olmo2, SmolLM3
from adaspec_jax.config.architectures.mistral import Ministral, Mistral
from adaspec_jax.config.architectures.mixtures import Mixtral, Qwen3Moe
from adaspec_jax.config.architectures.other import Described
from adaspec_jax.config.architectures.phi import Phi, Phi3
from adaspec_jax.config.architectures.qwen import Qwen2, Qwen3
from adaspec_jax.config.architectures.rotary import (
    ROPES,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    Rope,
    YarnRope,
)

_CLASSES: tuple[Any, ...] = (CodeGen, GPT2, GPTNeoX, Llama, Phi, Qwen2, Qwen3)
_CLASSES += (Gemma, Gemma2, Gemma3Text, Granite, Ministral, Mistral, Mixtral, Olmo2, Phi3, Qwen3Moe, SmolLM3)
FAMILIES: Mapping[str, type[Architecture]] = {cls.model_type: cls for cls in _CLASSES}

__all__ = [
    "FAMILIES",
    "GPT2",
    "ROPES",
    "Architecture",
    "CodeGen",
    "Described",
    "DynamicRope",
    "GPTNeoX",
    "Gemma",
    "Gemma2",
    "Gemma3Text",
    "Granite",
    "Grouped",
    "LinearRope",
    "Llama",
    "Llama3Rope",
    "LongRope",
    "Ministral",
    "Mistral",
    "Mixtral",
    "Olmo2",
    "Phi",
    "Phi3",
    "Qwen2",
    "Qwen3",
    "Qwen3Moe",
    "Rope",
    "SmolLM3",
    "YarnRope",
]
