"""Llama 2 and 3: RMSNorm, a gated MLP, whole heads rotated, keys and values shared by groups of query heads.

The tensor names and the plain part of the config are those of most families since.
"""

from __future__ import annotations

import re
from collections.abc import Callable

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
)
from adaspec_jax.models.families.rope import KINDS, rope_of, rope_parameters, rotary_size
from adaspec_jax.models.files.weights import Weight, linear, norm, same, transposed

ARCHITECTURE = "LlamaForCausalLM"
IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
NORMS = {
    "before": {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"},
    "after": {"post_attention_layernorm": "attention_out_norm", "post_feedforward_layernorm": "mlp_out_norm"},
    "both": {
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "attention_out_norm",
        "pre_feedforward_layernorm": "mlp_norm",
        "post_feedforward_layernorm": "mlp_out_norm",
    },
}


def config(hf: dict, *, known: tuple[str, ...] = KINDS, partly: bool = False) -> DecoderConfig:
    """The decoder of a Llama config.json, with its rotary keys in the old or the new place.

    `known`: the types of rotation that the family has; `partly`: whether a head may rotate in part.
    """
    num_heads = positive_int(hf, "num_attention_heads")
    rope = rope_parameters(hf, known=known)
    sized = hf.get("head_dim") is not None
    head_dim = positive_int(hf, "head_dim") if sized else head_size(hf, "hidden_size", "num_attention_heads")
    in_pairs(head_dim, head_dim, key="head_dim" if sized else "hidden_size")
    rotary_dim = rotary_size(hf, rope, head_dim, default=1.0, null=1.0)
    if rotary_dim != head_dim and not partly:
        raise UserError('config.json: "partial_rotary_factor" below 1 is not supported in this family')
    max_positions = positive_int(hf, "max_position_embeddings", default=2048)
    turned = rope_of(hf, rope, rotary_dim, max_positions, theta=10_000.0)
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
        rotary_dim=rotary_dim,
        rope_theta=turned.theta,
        rope_scaling=turned.scaling,
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=flag(hf, "mlp_bias", default=False),
        tie_embeddings=flag(hf, "tie_word_embeddings", default=False),
        max_positions=turned.max_positions,
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def gated_mlp(theirs: str, ours: str, config: DecoderConfig) -> list[Weight]:
    """Rows of a layer's MLP."""
    parts = ("up", "gate", "down")
    return [x for p in parts for x in linear(f"{theirs}.mlp.{p}_proj", f"{ours}/mlp/{p}", bias=config.mlp_bias)]


def table(config: DecoderConfig, mlp: Callable[[str, str, DecoderConfig], list[Weight]] = gated_mlp) -> list[Weight]:
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
        weights += mlp(theirs, ours, config)
        for name, path in NORMS[config.norms].items():
            weights += norm(f"{theirs}.{name}", f"{ours}/{path}", bias=False)
    weights += norm("model.norm", "final_norm", bias=False)
    if config.tie_embeddings:
        weights.append(Weight("lm_head.weight", ("embed/embedding",), same, tied_to="model.embed_tokens.weight"))
    else:
        weights.append(Weight("lm_head.weight", ("head/kernel",), transposed))
    return weights
