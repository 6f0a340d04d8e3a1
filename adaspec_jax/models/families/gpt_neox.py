"""GPT-NeoX (Pythia): LayerNorm, rotary embeddings on part of each head, queries, keys and values in one matrix."""

from __future__ import annotations

import re

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families.hf_config import (
    activation,
    first_eos,
    flag,
    head_size,
    number,
    positive_int,
)
from adaspec_jax.models.families.rope import rope_of, rope_parameters, rotary_size
from adaspec_jax.models.files.weights import Weight, fused_qkv, linear, norm, same, transposed

ARCHITECTURE = "GPTNeoXForCausalLM"
IGNORED = re.compile(r".*\.attention\.(bias|masked_bias)|(.*\.)?rotary_emb\.inv_freq")


def config(hf: dict) -> DecoderConfig:
    """The decoder of a GPT-NeoX config.json, in its old (`rotary_pct`) or new (`rope_parameters`) form."""
    head_dim, num_heads = head_size(hf, "hidden_size", "num_attention_heads"), positive_int(hf, "num_attention_heads")
    rope, max_positions = rope_parameters(hf), positive_int(hf, "max_position_embeddings", default=2048)
    rotary_dim = rotary_size(hf, rope, head_dim, default=0.25, old="rotary_pct")
    turned = rope_of(hf, rope, rotary_dim, max_positions, theta=10_000.0, old="rotary_emb_base")
    attention_bias = flag(hf, "attention_bias", default=True)
    return DecoderConfig(
        model_type="gpt_neox",
        vocab_size=positive_int(hf, "vocab_size"),
        hidden_size=num_heads * head_dim,
        intermediate_size=positive_int(hf, "intermediate_size"),
        num_layers=positive_int(hf, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        norm="layer",
        norm_eps=number(hf, "layer_norm_eps", default=1e-5),
        parallel_residual=flag(hf, "use_parallel_residual", default=True),
        mlp="plain",
        activation=activation(hf, "hidden_act", default="gelu"),
        rotary_dim=rotary_dim,
        rope_theta=turned.theta,
        rope_scaling=turned.scaling,
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=True,
        tie_embeddings=flag(hf, "tie_word_embeddings", default=False),
        max_positions=turned.max_positions,
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    weights = [Weight("gpt_neox.embed_in.weight", ("embed/embedding",), same)]
    for i in range(config.num_layers):
        theirs, ours = f"gpt_neox.layers.{i}", f"layers_{i}"
        qkv = fused_qkv(config.num_heads, config.head_dim)
        parts = ("weight", "bias") if config.qkv_bias else ("weight",)
        weights += [
            Weight(
                f"{theirs}.attention.query_key_value.{part}",
                tuple(f"{ours}/attention/{x}/{'kernel' if part == 'weight' else 'bias'}" for x in "qkv"),
                qkv,
            )
            for part in parts
        ]
        weights += linear(f"{theirs}.attention.dense", f"{ours}/attention/out", bias=config.out_bias)
        weights += linear(f"{theirs}.mlp.dense_h_to_4h", f"{ours}/mlp/up", bias=config.mlp_bias)
        weights += linear(f"{theirs}.mlp.dense_4h_to_h", f"{ours}/mlp/down", bias=config.mlp_bias)
        weights += norm(f"{theirs}.input_layernorm", f"{ours}/attention_norm")
        weights += norm(f"{theirs}.post_attention_layernorm", f"{ours}/mlp_norm")
    weights += norm("gpt_neox.final_layer_norm", "final_norm")
    head = Weight("embed_out.weight", ("head/kernel",), transposed, also=("lm_head.weight",))  # on disk, and in memory
    if config.tie_embeddings:
        head = head._replace(paths=("embed/embedding",), layout=same, tied_to="gpt_neox.embed_in.weight")
    return [*weights, head]
