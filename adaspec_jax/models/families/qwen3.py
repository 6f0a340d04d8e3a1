"""Qwen3: Llama with every query and key head normalised, and a head size of its own."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama, qwen2

ARCHITECTURE = "Qwen3ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = qwen2.DEFAULTS | {"head_dim": 128}
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen3 config.json."""
    rest = llama.config(DEFAULTS | hf)
    return replace(rest, model_type="qwen3", qk_norm=True, mlp_bias=False, windows=qwen2.windows_of(hf, rest))
