"""Qwen2 and 2.5: Llama with biases on queries, keys and values alone."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import refuse

ARCHITECTURE = "Qwen2ForCausalLM"
IGNORED = llama.IGNORED
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen2 config.json; UserError where layers attend to a window only."""
    check_attention(hf)
    return replace(llama.config(hf), model_type="qwen2", qkv_bias=True, out_bias=False, mlp_bias=False)


def check_attention(hf: dict) -> None:
    """UserError for the variants of attention that a Qwen config.json may ask for."""
    refuse(hf, "use_sliding_window", why="every layer attends to the whole text")
    refuse(hf, "use_mrope", why="positions count tokens of text")
    if other := set(hf.get("layer_types") or ()) - {"full_attention"}:
        raise UserError(f'config.json: "layer_types" has "{min(other)}"; only "full_attention" is supported')
