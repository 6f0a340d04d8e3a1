"""The families: config.json's `model_type` -> the module that describes it.

A family is a file with `ARCHITECTURE` (the transformers class), `config(hf) -> DecoderConfig`, `table(config)` (its
weight table) and `IGNORED` (a pattern of legacy buffers that loading drops silently); perhaps `said(hf)`, lines to say
of a config.json that is read. Where layers differ by what their number is, `by_layer(hf, num_layers)` says what
config.json would say of each, so that some of them can be cut out.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import (
    codegen,
    gemma,
    gemma2,
    gemma3_text,
    gpt2,
    gpt_neox,
    granite,
    llama,
    ministral,
    mistral,
    mixtral,
    olmo2,
    phi,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from adaspec_jax.models.families.hf_config import check_ids, masks_said

FAMILIES: dict[str, ModuleType] = {
    "codegen": codegen,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "granite": granite,
    "llama": llama,
    "ministral": ministral,
    "mistral": mistral,
    "mixtral": mixtral,
    "olmo2": olmo2,
    "phi": phi,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "smollm3": smollm3,
}

# What families that people ask for would need beside what is here.
MISSING = {
    "gpt_oss": "attention sinks, and experts with biases and a bounded activation",
    "gemma3n": "layers that share keys and values, and embeddings per layer",
    "qwen2_moe": "an expert that every token shares",
    "qwen3_next": "layers of linear attention",
    "granitemoehybrid": "state-space layers",
    "deepseek_v3": "latent attention, and an expert that every token shares",
}


def family(model_type: str) -> ModuleType:
    """The family's module; UserError listing the known ones otherwise."""
    if model_type not in FAMILIES:
        if model_type in MISSING:
            raise UserError(f'config.json: model_type "{model_type}" is not supported: it needs {MISSING[model_type]}')
        known = ", ".join(sorted(FAMILIES))
        hint = did_you_mean(model_type, FAMILIES)
        hint = "" if hint.startswith("; known") else hint
        raise UserError(f'config.json: model_type "{model_type}" is not supported; supported: {known}{hint}')
    return FAMILIES[model_type]


def config_from_hf(hf_config: dict) -> DecoderConfig:
    """The decoder a config.json describes; UserError for an unknown family or an unusable value, named."""
    model_type = hf_config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f'config.json has no "model_type"; supported: {", ".join(sorted(FAMILIES))}')
    config = family(model_type).config(hf_config)
    check_ids(hf_config)
    return replace(config, **masks_said(hf_config, config.vocab_size), source=json.dumps(hf_config, sort_keys=True))
