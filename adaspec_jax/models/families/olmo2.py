"""OLMo 2: Llama that normalises what sublayers add, and queries and keys, all heads together."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import refuse_null

ARCHITECTURE = "Olmo2ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = {"rms_norm_eps": 1e-5}  # of a config.json that lacks the key
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of an OLMo 2 config.json."""
    refuse_null(hf, "head_dim")
    rest = llama.config(DEFAULTS | hf | {"mlp_bias": False})
    return replace(rest, model_type="olmo2", norms="after", qk_norm=True, qk_norm_whole=True)
