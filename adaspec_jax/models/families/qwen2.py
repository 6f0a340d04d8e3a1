"""Qwen2 and 2.5: Llama with biases on queries, keys and values alone."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import flag, positive_int, refuse, whole_number

ARCHITECTURE = "Qwen2ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = {"num_key_value_heads": 32, "max_position_embeddings": 32768}  # of a config.json that lacks the keys
FULL, SLIDING = "full_attention", "sliding_attention"
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Qwen2 config.json; UserError where layers attend to a window only."""
    rest = llama.config(DEFAULTS | hf)
    check_attention(hf, rest)
    return replace(rest, model_type="qwen2", qkv_bias=True, out_bias=False, mlp_bias=False)


def check_attention(hf: dict, config: DecoderConfig) -> None:
    """UserError for the variants of attention that a Qwen config.json may ask for.

    A window that slides in no layer, or that holds the whole context, is none.
    """
    refuse(hf, "use_mrope", why="positions count tokens of text")
    if "head_dim" in hf:
        positive_int(hf, "head_dim")
    window = hf.get("sliding_window", 4096)
    if window is not None:
        positive_int(hf, "sliding_window", default=window)
    if not flag(hf, "use_sliding_window", default=False):
        window = None
    kinds = _layer_types(hf, config.num_layers, sliding=window is not None)
    if SLIDING in kinds and (window is None or window < config.max_positions):
        seen = "a window" if window is None else f"the last {window} tokens"
        raise UserError(
            f'config.json: by "sliding_window" and "layer_types", {kinds.count(SLIDING)} of {len(kinds)} layers attend '
            f"to {seen} alone, which is not supported"
        )


def _layer_types(hf: dict, num_layers: int, *, sliding: bool) -> list[str]:
    first = whole_number(hf, "max_window_layers", default=28)
    kinds = hf.get("layer_types")
    if kinds is None:
        return [SLIDING if sliding and i >= first else FULL for i in range(num_layers)]
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise UserError(f'config.json: "layer_types" is {kinds!r:.60}; {num_layers} kinds, one per layer, are needed')
    if other := [kind for kind in kinds if kind not in (FULL, SLIDING)]:
        raise UserError(f'config.json: "layer_types" has "{other[0]}"; only "{FULL}" is supported')
    return kinds
