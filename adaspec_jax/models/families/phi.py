"""Phi-1, 1.5 and 2: attention and MLP side by side behind one LayerNorm, biases everywhere, the head included."""

from __future__ import annotations

import re

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families.hf_config import (
    activation,
    first_eos,
    head_size,
    kv_heads,
    number,
    positive_int,
    refuse,
)
from adaspec_jax.models.families.rope import rope_of, rope_parameters, rotary_size
from adaspec_jax.models.files.weights import Weight, linear, norm, same

ARCHITECTURE = "PhiForCausalLM"
IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Phi config.json, with its rotary keys in the old or the new place."""
    refuse(hf, "qk_layernorm", why="queries and keys are used as they are in Phi-1, 1.5 and 2")
    refuse(hf, "tie_word_embeddings", why="the head has a bias")
    head_dim, num_heads = head_size(hf, "hidden_size", "num_attention_heads"), positive_int(hf, "num_attention_heads")
    rope, max_positions = rope_parameters(hf), positive_int(hf, "max_position_embeddings", default=2048)
    rotary_dim = rotary_size(hf, rope, head_dim, default=0.5)
    turned = rope_of(hf, rope, rotary_dim, max_positions, theta=10_000.0)
    return DecoderConfig(
        model_type="phi",
        vocab_size=positive_int(hf, "vocab_size"),
        hidden_size=num_heads * head_dim,
        intermediate_size=positive_int(hf, "intermediate_size"),
        num_layers=positive_int(hf, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=kv_heads(hf, num_heads),
        head_dim=head_dim,
        norm="layer",
        norm_eps=number(hf, "layer_norm_eps", default=1e-5),
        parallel_residual=True,
        shared_norm=True,
        mlp="plain",
        activation=activation(hf, "hidden_act", default="gelu_new"),
        rotary_dim=rotary_dim,
        rope_theta=turned.theta,
        rope_scaling=turned.scaling,
        head_bias=True,
        max_positions=turned.max_positions,
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    weights = [Weight("model.embed_tokens.weight", ("embed/embedding",), same)]
    for i in range(config.num_layers):
        theirs, ours = f"model.layers.{i}", f"layers_{i}"
        for part in "qkv":
            weights += linear(f"{theirs}.self_attn.{part}_proj", f"{ours}/attention/{part}", bias=True)
        weights += linear(f"{theirs}.self_attn.dense", f"{ours}/attention/out", bias=True)
        weights += linear(f"{theirs}.mlp.fc1", f"{ours}/mlp/up", bias=True)
        weights += linear(f"{theirs}.mlp.fc2", f"{ours}/mlp/down", bias=True)
        weights += norm(f"{theirs}.input_layernorm", f"{ours}/attention_norm")
    weights += norm("model.final_layernorm", "final_norm")
    return weights + linear("lm_head", "head", bias=True)
