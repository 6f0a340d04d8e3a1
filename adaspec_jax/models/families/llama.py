"""Llama 2 and 3: RMSNorm, a gated MLP, whole heads rotated, keys and values shared by groups of query heads.

The tensor names and the plain part of the config are those of Qwen too.
"""

from __future__ import annotations

import re

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families.hf_config import (
    activation,
    first_eos,
    flag,
    head_size,
    in_pairs,
    kv_heads,
    number,
    positive_int,
    rope_parameters,
    rope_scaling,
    rope_theta,
    rotary_size,
)
from adaspec_jax.models.files.weights import Weight, linear, norm, same, transposed

ARCHITECTURE = "LlamaForCausalLM"
IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Llama config.json, with its rotary keys in the old or the new place."""
    num_heads = positive_int(hf, "num_attention_heads")
    rope = rope_parameters(hf, known=("default", "llama3"))
    sized = hf.get("head_dim") is not None
    head_dim = positive_int(hf, "head_dim") if sized else head_size(hf, "hidden_size", "num_attention_heads")
    in_pairs(head_dim, head_dim, key="head_dim" if sized else "hidden_size")
    if rotary_size(hf, rope, head_dim, default=1.0, null=1.0) != head_dim:
        raise UserError('config.json: "partial_rotary_factor" below 1 is not supported in this family')
    max_positions = positive_int(hf, "max_position_embeddings", default=2048)
    attention_bias = flag(hf, "attention_bias", default=False)
    return DecoderConfig(
        model_type="llama",
        vocab_size=positive_int(hf, "vocab_size"),
        hidden_size=positive_int(hf, "hidden_size"),
        intermediate_size=positive_int(hf, "intermediate_size"),
        num_layers=positive_int(hf, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=kv_heads(hf, num_heads),
        head_dim=head_dim,
        norm="rms",
        norm_eps=number(hf, "rms_norm_eps", default=1e-6),
        mlp="gated",
        activation=activation(hf, "hidden_act", default="silu"),
        rotary_dim=head_dim,
        rope_theta=rope_theta(hf, rope),
        rope_scaling=rope_scaling(rope, max_positions),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=flag(hf, "mlp_bias", default=False),
        tie_embeddings=flag(hf, "tie_word_embeddings", default=False),
        max_positions=max_positions,
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    weights = [Weight("model.embed_tokens.weight", ("embed/embedding",), same)]
    for i in range(config.num_layers):
        theirs, ours = f"model.layers.{i}", f"layers_{i}"
        for part in "qkv":
            weights += linear(f"{theirs}.self_attn.{part}_proj", f"{ours}/attention/{part}", bias=config.qkv_bias)
        weights += linear(f"{theirs}.self_attn.o_proj", f"{ours}/attention/out", bias=config.out_bias)
        if config.qk_norm:
            for part in ("q_norm", "k_norm"):
                weights += norm(f"{theirs}.self_attn.{part}", f"{ours}/attention/{part}", bias=False)
        for part in ("up", "gate", "down"):
            weights += linear(f"{theirs}.mlp.{part}_proj", f"{ours}/mlp/{part}", bias=config.mlp_bias)
        weights += norm(f"{theirs}.input_layernorm", f"{ours}/attention_norm", bias=False)
        weights += norm(f"{theirs}.post_attention_layernorm", f"{ours}/mlp_norm", bias=False)
    weights += norm("model.norm", "final_norm", bias=False)
    if config.tie_embeddings:
        weights.append(Weight("lm_head.weight", ("embed/embedding",), same, tied_to="model.embed_tokens.weight"))
    else:
        weights.append(Weight("lm_head.weight", ("head/kernel",), transposed))
    return weights
