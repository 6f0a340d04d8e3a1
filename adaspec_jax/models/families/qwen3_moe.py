"""Qwen3's mixtures of experts (30B-A3B, 235B-A22B): Qwen3 with a router and experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import experts, llama
from adaspec_jax.models.families.hf_config import flag, positive_int, refuse
from adaspec_jax.models.families.windows import alike, window_of, windows_by
from adaspec_jax.models.files.weights import Weight

ARCHITECTURE = "Qwen3MoeForCausalLM"
IGNORED = llama.IGNORED
said = experts.said_of
# Of a config.json that lacks the keys.
DEFAULTS = {"num_key_value_heads": 4, "max_position_embeddings": 32768}


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen3-MoE config.json; UserError where a layer has no experts."""
    rest = llama.config(DEFAULTS | hf)
    for key in {"num_key_value_heads", "head_dim"} & {*hf}:  # which may be absent, not null
        positive_int(hf, key)
    refuse(hf, "use_mrope", why="positions count tokens of text")
    said(hf)
    count, per_token = experts.experts_of(hf, count=128, per_token=8)
    _check_every_layer_has_experts(hf, rest.num_layers)
    window = window_of(hf, default=4096) if flag(hf, "use_sliding_window", default=False) else None
    return replace(
        rest,
        model_type="qwen3_moe",
        qk_norm=True,
        mlp_bias=False,
        experts=count,
        experts_per_token=per_token,
        expert_size=positive_int(hf, "moe_intermediate_size", default=768),
        windows=windows_by(alike(window, rest.num_layers), window, rest.max_positions),
        normalise_experts=flag(hf, "norm_topk_prob", default=False),
    )


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    return experts.table(config, block=experts.NEW_BLOCK, names=experts.NEW_NAMES)


def _check_every_layer_has_experts(hf: dict, num_layers: int) -> None:
    step = positive_int(hf, "decoder_sparse_step", default=1)
    if step > 1:
        raise UserError(f'config.json: "decoder_sparse_step" is {step}; only 1, experts in every layer, is supported')
    dense = hf.get("mlp_only_layers") or []
    if not isinstance(dense, list) or any(type(layer) is not int for layer in dense):
        raise UserError(f'config.json: "mlp_only_layers" is {dense!r:.60}; a list of layers or null is needed')
    if without := [layer for layer in dense if 0 <= layer < num_layers]:
        raise UserError(f'config.json: "mlp_only_layers" has {without[0]}; layers without experts are not supported')
