"""Phi-3 and Phi-4-mini: Llama with queries, keys and values in one matrix, gate and up in another.

Phi-4-mini rotates three quarters of each head. The longer contexts have a stretch per feature (LongRoPE).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import number, refuse_null
from adaspec_jax.models.families.windows import alike, window_of, windows_by
from adaspec_jax.models.files.weights import Layout, Weight

ARCHITECTURE = "Phi3ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096}
FIXED = {"attention_bias": False, "mlp_bias": False}
_UNITED = ("q", "k", "v", "gate", "up")


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Phi-3 config.json."""
    refuse_null(hf, "head_dim", "original_max_position_embeddings")
    number(hf, "partial_rotary_factor", default=1.0)
    rest = llama.config(_renamed(DEFAULTS | hf | FIXED), known=("default", "longrope"), partly=True)
    window = window_of(hf)
    windows = windows_by(alike(window, rest.num_layers), window, rest.max_positions)
    return replace(rest, model_type="phi3", windows=windows)


def table(config: DecoderConfig) -> list[Weight]:
    """On-disk names as transformers writes them -> our parameter paths."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    rows = [row for row in llama.table(config) if not any(f"{part}_proj.weight" in row.name for part in _UNITED)]
    for i in range(config.num_layers):
        theirs, ours = f"model.layers.{i}", f"layers_{i}"
        qkv, gate_up = _under_another(queries, queries + keys), _under_another(config.intermediate_size)
        rows.append(Weight(f"{theirs}.self_attn.qkv_proj.weight", _kernels(f"{ours}/attention", "q", "k", "v"), qkv))
        rows.append(Weight(f"{theirs}.mlp.gate_up_proj.weight", _kernels(f"{ours}/mlp", "gate", "up"), gate_up))
    return rows


def _under_another(*ends: int) -> Layout:
    """Matrices [out, in] one under another, which end at these rows."""
    return Layout(
        lambda fused: tuple(part.T for part in np.split(fused, ends)),
        lambda *kernels: np.concatenate([kernel.T for kernel in kernels]),
    )


def _kernels(place: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{place}/{name}/kernel" for name in names)


def _renamed(hf: dict) -> dict:
    """Its first files call LongRoPE "su" or "yarn"."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = hf.get(key)
        if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
            hf = hf | {key: {name: value for name, value in rope.items() if name != "type"} | {"rope_type": "longrope"}}
    return hf
