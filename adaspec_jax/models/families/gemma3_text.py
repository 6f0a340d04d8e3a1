"""Gemma 3's text model: Gemma 2 with normalised queries and keys in place of soft caps, five windows to one full layer.

Layers with windows have a rotation of their own, of a smaller base and never stretched.
"""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import gemma, llama
from adaspec_jax.models.families.hf_config import activation, none_or_number, number, positive_int
from adaspec_jax.models.families.rope import Rope, rope_by_kind, rope_of, rope_parameters
from adaspec_jax.models.families.windows import FULL, SLIDING, layer_types, window_of, windows_by

ARCHITECTURE = "Gemma3ForCausalLM"
IGNORED = llama.IGNORED
DEFAULTS = gemma.DEFAULTS | {"num_key_value_heads": 4, "max_position_embeddings": 131072}
DEFAULTS |= {"num_attention_heads": 8, "vocab_size": 262208}  # the text part of Gemma 3 4B names neither
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Gemma 3 text config.json, with rotations in their old or their new form."""
    if hf.get("attn_logit_softcapping") is not None:
        raise UserError('config.json: "attn_logit_softcapping" is not null; Gemma 3 has no soft cap of scores')
    act = activation(hf, "hidden_activation", default="gelu_pytorch_tanh")
    unturned = {"rope_parameters": None, "rope_scaling": None}
    rest = gemma.plain(DEFAULTS | hf | unturned | {"hidden_act": act})
    full, local = _ropes(hf, rest)
    kinds = by_layer(hf, rest.num_layers)["layer_types"]
    return replace(
        rest,
        model_type="gemma3_text",
        norms="both",
        qk_norm=True,
        attention_scale=number(hf, "query_pre_attn_scalar", default=256) ** -0.5,
        logit_softcap=none_or_number(hf, "final_logit_softcapping"),
        max_positions=min(full.max_positions, local.max_positions),
        rope_theta=full.theta,
        rope_scaling=full.scaling,
        local_rope_theta=local.theta,
        local_rope_scaling=local.scaling,
        rotations=tuple(int(kind == SLIDING) for kind in kinds),
        windows=windows_by(kinds, window_of(hf, default=4096), rest.max_positions),
    )


def by_layer(hf: dict, num_layers: int) -> dict:
    """What config.json says of each layer, or would if it said it."""
    every = positive_int(hf, "sliding_window_pattern", default=positive_int(hf, "_sliding_window_pattern", default=6))
    default = [SLIDING if (i + 1) % every else FULL for i in range(num_layers)]
    return {"layer_types": layer_types(hf, num_layers, default)}


def _ropes(hf: dict, rest: DecoderConfig) -> tuple[Rope, Rope]:
    """Of layers that attend to all, and of those with windows."""
    size, most = rest.rotary_dim, rest.max_positions
    if (both := rope_by_kind(hf, (FULL, SLIDING))) is not None:
        full, local = both[FULL], both[SLIDING]
    else:
        full, local = rope_parameters(hf), {}
    return (
        rope_of(hf, full, size, most, theta=1_000_000.0),
        rope_of(hf, local, size, most, theta=10_000.0, old="rope_local_base_freq"),
    )
