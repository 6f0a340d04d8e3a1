"""Qwen3: Llama with every query and key head normalised, and a head size of its own."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.qwen2 import check_attention

ARCHITECTURE = "Qwen3ForCausalLM"
IGNORED = llama.IGNORED
HEAD_SIZE = 128  # of a config.json that names none
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen3 config.json; UserError where layers attend to a window only."""
    check_attention(hf)
    return replace(llama.config({"head_dim": HEAD_SIZE} | hf), model_type="qwen3", qk_norm=True, mlp_bias=False)
