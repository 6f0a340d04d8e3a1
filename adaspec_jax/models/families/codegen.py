"""CodeGen: attention and MLP side by side behind one LayerNorm, neighbouring features rotated in pairs.

Queries, values and keys lie in one matrix, in this order, in four blocks of heads: one per TPU core it was trained on.
"""

from __future__ import annotations

import re

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families.hf_config import (
    activation,
    first_eos,
    head_size,
    in_pairs,
    number,
    positive_int,
    refuse,
)
from adaspec_jax.models.files.weights import Weight, fused_qkv, linear, norm, same

ARCHITECTURE = "CodeGenForCausalLM"
IGNORED = re.compile(r".*\.attn\.(causal_mask|bias|masked_bias|embed_positions)")
BLOCKS = 4


def config(hf: dict) -> DecoderConfig:
    """The decoder of a CodeGen config.json."""
    refuse(hf, "tie_word_embeddings", why="the head has a bias")
    head_dim, num_heads = head_size(hf, "n_embd", "n_head"), positive_int(hf, "n_head")
    if num_heads % BLOCKS:
        raise UserError(f"config.json: n_head {num_heads} is not a multiple of {BLOCKS}, as CodeGen's weights need")
    inner = 4 * num_heads * head_dim
    return DecoderConfig(
        model_type="codegen",
        vocab_size=positive_int(hf, "vocab_size"),
        hidden_size=num_heads * head_dim,
        intermediate_size=positive_int(hf, "n_inner", default=inner, null=inner),
        num_layers=positive_int(hf, "n_layer"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        norm="layer",
        norm_eps=number(hf, "layer_norm_epsilon", default=1e-5),
        parallel_residual=True,
        shared_norm=True,
        mlp="plain",
        activation=activation(hf, "activation_function", default="gelu_new"),
        rotary_dim=in_pairs(positive_int(hf, "rotary_dim", default=64), head_dim, key="rotary_dim"),
        rotary_interleaved=True,
        qkv_bias=False,
        out_bias=False,
        head_bias=True,
        max_positions=positive_int(hf, "n_positions", default=2048),
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    weights = [Weight("transformer.wte.weight", ("embed/embedding",), same)]
    qkv = fused_qkv(BLOCKS, config.num_heads // BLOCKS * config.head_dim, order="qvk")
    for i in range(config.num_layers):
        theirs, ours = f"transformer.h.{i}", f"layers_{i}"
        kernels = tuple(f"{ours}/attention/{x}/kernel" for x in "qkv")
        weights.append(Weight(f"{theirs}.attn.qkv_proj.weight", kernels, qkv))
        weights += linear(f"{theirs}.attn.out_proj", f"{ours}/attention/out", bias=False)
        weights += linear(f"{theirs}.mlp.fc_in", f"{ours}/mlp/up", bias=True)
        weights += linear(f"{theirs}.mlp.fc_out", f"{ours}/mlp/down", bias=True)
        weights += norm(f"{theirs}.ln_1", f"{ours}/attention_norm")
    weights += norm("transformer.ln_f", "final_norm")
    return weights + linear("lm_head", "head", bias=True)
