"""Mixtral (8x7B, 8x22B): Llama with a router and experts in every layer, whose shares sum to 1."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import experts, llama
from adaspec_jax.models.families.hf_config import positive_int
from adaspec_jax.models.families.windows import alike, window_of, windows_by
from adaspec_jax.models.files.weights import Weight

ARCHITECTURE = "MixtralForCausalLM"
IGNORED = llama.IGNORED
said = experts.said_of
# Of a config.json that lacks the keys.
DEFAULTS = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 1e6, "rms_norm_eps": 1e-5}
BLOCK, NAMES = "block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Mixtral config.json."""
    rest = llama.config(DEFAULTS | hf)
    positive_int(DEFAULTS | hf, "num_key_value_heads")
    said(hf)
    window = window_of(hf)
    count, per_token = experts.experts_of(hf, count=8, per_token=2)
    return replace(
        rest,
        model_type="mixtral",
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        experts=count,
        experts_per_token=per_token,
        expert_size=rest.intermediate_size,
        normalise_experts=True,
        windows=windows_by(alike(window, rest.num_layers), window, rest.max_positions),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers 4 and servers read them -> our parameter paths."""
    return experts.table(config, block=BLOCK, names=NAMES)
