"""Ministral: Mistral whose config.json says of each layer whether it attends to a window."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama, mistral
from adaspec_jax.models.families.hf_config import positive_int
from adaspec_jax.models.families.windows import alike, layer_types, window_of, windows_by

ARCHITECTURE = "MinistralForCausalLM"
IGNORED = llama.IGNORED
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Ministral config.json."""
    positive_int(hf, "head_dim")
    rest, window = mistral.config(hf), window_of(hf, default=4096)
    kinds = layer_types(hf, rest.num_layers, alike(window, rest.num_layers))
    return replace(rest, model_type="ministral", windows=windows_by(kinds, window, rest.max_positions))
