"""Granite: Llama with factors on embeddings, scores, what sublayers add, and logits."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import number, refuse_null

ARCHITECTURE = "GraniteForCausalLM"
IGNORED = llama.IGNORED
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Granite config.json."""
    refuse_null(hf, "head_dim")
    return replace(
        llama.config(hf),
        model_type="granite",
        embed_scale=number(hf, "embedding_multiplier", default=1.0),
        attention_scale=number(hf, "attention_multiplier", default=1.0),
        residual_scale=number(hf, "residual_multiplier", default=1.0),
        logit_scale=1 / number(hf, "logits_scaling", default=1.0),
    )
