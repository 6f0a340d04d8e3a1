"""Gemma 2: Gemma with norms around every sublayer, soft caps, and a window in every second layer."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import gemma, llama
from adaspec_jax.models.families.hf_config import activation, none_or_number, number
from adaspec_jax.models.families.windows import FULL, SLIDING, layer_types, window_of, windows_by

ARCHITECTURE = "Gemma2ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = gemma.DEFAULTS | {"num_key_value_heads": 4}
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Gemma 2 config.json."""
    act = activation(hf, "hidden_activation", default="gelu_pytorch_tanh")
    rest = gemma.plain(DEFAULTS | hf | {"hidden_act": act})
    kinds = by_layer(hf, rest.num_layers)["layer_types"]
    return replace(
        rest,
        model_type="gemma2",
        norms="both",
        attention_scale=number(hf, "query_pre_attn_scalar", default=256) ** -0.5,
        attention_softcap=none_or_number(hf, "attn_logit_softcapping", default=50.0),
        logit_softcap=none_or_number(hf, "final_logit_softcapping", default=30.0),
        windows=windows_by(kinds, window_of(hf, default=4096), rest.max_positions),
    )


def by_layer(hf: dict, num_layers: int) -> dict:
    """What config.json says of each layer, or would if it said it: a window in the first, and in every second."""
    default = [FULL if i % 2 else SLIDING for i in range(num_layers)]
    return {"layer_types": layer_types(hf, num_layers, default)}
