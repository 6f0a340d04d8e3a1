"""GPT-2: a learned vector per position, LayerNorm, tied embeddings, queries, keys and values in one matrix.

Its matrices lie on disk as [in, out], as ours do, where torch's other families have [out, in].
"""

from __future__ import annotations

import re

import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families.hf_config import activation, first_eos, flag, head_size, number, positive_int, refuse
from adaspec_jax.models.files.weights import Layout, Weight, norm, same, transposed

ARCHITECTURE = "GPT2LMHeadModel"
IGNORED = re.compile(r".*\.attn\.(bias|masked_bias)")
_BESIDE = Layout(lambda fused: tuple(np.split(fused, 3, axis=-1)), lambda *qkv: np.concatenate(qkv, axis=-1))


def config(hf: dict) -> DecoderConfig:
    """The decoder of a GPT-2 config.json."""
    refuse(hf, "add_cross_attention", why="there is no encoder to attend to")
    refuse(hf, "scale_attn_by_inverse_layer_idx", why="scores are divided by the root of the head size alone")
    if not flag(hf, "scale_attn_weights", default=True):
        raise UserError('config.json: "scale_attn_weights" is false, which is not supported: scores are always scaled')
    head_dim, num_heads = head_size(hf, "n_embd", "n_head"), positive_int(hf, "n_head")
    inner = 4 * num_heads * head_dim
    return DecoderConfig(
        model_type="gpt2",
        vocab_size=positive_int(hf, "vocab_size"),
        hidden_size=num_heads * head_dim,
        intermediate_size=positive_int(hf, "n_inner", default=inner, null=inner),
        num_layers=positive_int(hf, "n_layer"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        norm="layer",
        norm_eps=number(hf, "layer_norm_epsilon", default=1e-5),
        mlp="plain",
        activation=activation(hf, "activation_function", default="gelu_new"),
        learned_positions=True,
        tie_embeddings=flag(hf, "tie_word_embeddings", default=True),
        max_positions=positive_int(hf, "n_positions", default=1024),
        initializer_range=number(hf, "initializer_range", default=0.02),
        eos_token_id=first_eos(hf),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    weights = [
        Weight("transformer.wte.weight", ("embed/embedding",), same),
        Weight("transformer.wpe.weight", ("position_embed/embedding",), same),
    ]
    for i in range(config.num_layers):
        theirs, ours = f"transformer.h.{i}", f"layers_{i}"
        for part, here in (("weight", "kernel"), ("bias", "bias")):
            qkv = tuple(f"{ours}/attention/{x}/{here}" for x in "qkv")
            weights += [
                Weight(f"{theirs}.attn.c_attn.{part}", qkv, _BESIDE),
                Weight(f"{theirs}.attn.c_proj.{part}", (f"{ours}/attention/out/{here}",), same),
                Weight(f"{theirs}.mlp.c_fc.{part}", (f"{ours}/mlp/up/{here}",), same),
                Weight(f"{theirs}.mlp.c_proj.{part}", (f"{ours}/mlp/down/{here}",), same),
            ]
        weights += norm(f"{theirs}.ln_1", f"{ours}/attention_norm")
        weights += norm(f"{theirs}.ln_2", f"{ours}/mlp_norm")
    weights += norm("transformer.ln_f", "final_norm")
    if config.tie_embeddings:
        return [*weights, Weight("lm_head.weight", ("embed/embedding",), same, tied_to="transformer.wte.weight")]
    return [*weights, Weight("lm_head.weight", ("head/kernel",), transposed)]
