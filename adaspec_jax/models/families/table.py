"""The families: config.json's `model_type` -> the module that describes it.

A family is a file with `ARCHITECTURE` (the transformers class), `config(hf) -> DecoderConfig`, `table(config)` (its
weight table) and `IGNORED` (a pattern of legacy buffers that loading drops silently).
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import codegen, gpt2, gpt_neox, llama, phi, qwen2, qwen3
from adaspec_jax.models.families.hf_config import check_ids

FAMILIES: dict[str, ModuleType] = {
    "codegen": codegen,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "phi": phi,
    "qwen2": qwen2,
    "qwen3": qwen3,
}


def family(model_type: str) -> ModuleType:
    """The family's module; UserError listing the known ones otherwise."""
    if model_type not in FAMILIES:
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
    return replace(config, source=json.dumps(hf_config, sort_keys=True))
