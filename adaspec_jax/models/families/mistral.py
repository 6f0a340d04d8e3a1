"""Mistral: Llama, with a window in all layers (Mistral 7B's first version) or in none."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import refuse_null
from adaspec_jax.models.families.windows import alike, window_of, windows_by

ARCHITECTURE = "MistralForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = {"num_key_value_heads": 8, "max_position_embeddings": 131072}  # of a config.json that lacks the keys
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Mistral config.json; where it says a window, that is every layer's."""
    refuse_null(hf, "num_key_value_heads")
    rest = llama.config(DEFAULTS | hf | {"attention_bias": False, "mlp_bias": False})
    window = window_of(hf, default=4096)
    windows = windows_by(alike(window, rest.num_layers), window, rest.max_positions)
    return replace(rest, model_type="mistral", windows=windows)
