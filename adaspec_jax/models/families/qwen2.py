"""Qwen2 and 2.5: Llama with biases on queries, keys and values alone."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import flag, positive_int, refuse, whole_number
from adaspec_jax.models.families.windows import FULL, SLIDING, layer_types, window_of, windows_by

ARCHITECTURE = "Qwen2ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = {"num_key_value_heads": 32, "max_position_embeddings": 32768}  # of a config.json that lacks the keys
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen2 config.json."""
    rest = llama.config(DEFAULTS | hf)
    windows = windows_of(hf, rest)
    return replace(rest, model_type="qwen2", qkv_bias=True, out_bias=False, mlp_bias=False, windows=windows)


def windows_of(hf: dict, config: DecoderConfig) -> tuple[int, ...]:
    """The windows of a Qwen config.json; UserError for other variants of attention that it may ask for."""
    refuse(hf, "use_mrope", why="positions count tokens of text")
    if "head_dim" in hf:
        positive_int(hf, "head_dim")
    window = window_of(hf, default=4096)
    if not flag(hf, "use_sliding_window", default=False):
        window = None
    first = whole_number(hf, "max_window_layers", default=28)
    default = [SLIDING if window is not None and i >= first else FULL for i in range(config.num_layers)]
    return windows_by(layer_types(hf, config.num_layers, default), window, config.max_positions)
