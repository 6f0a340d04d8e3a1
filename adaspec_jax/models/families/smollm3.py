"""SmolLM3: Llama of which every fourth layer rotates nothing."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.errors import UserError
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import flag, positive_int, refuse_null
from adaspec_jax.models.families.windows import FULL, SLIDING, layer_types, window_of, windows_by

ARCHITECTURE = "SmolLM3ForCausalLM"
IGNORED = llama.IGNORED
# Of a config.json that lacks the keys.
DEFAULTS = {"num_key_value_heads": 4, "max_position_embeddings": 32768, "tie_word_embeddings": True}
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a SmolLM3 config.json."""
    refuse_null(hf, "head_dim")
    rest = llama.config({"rope_theta": 2_000_000.0} | DEFAULTS | hf)
    said = by_layer(hf, rest.num_layers)
    window = window_of(hf) if flag(hf, "use_sliding_window", default=False) else None
    return replace(
        rest,
        model_type="smollm3",
        rotations=tuple(0 if turns else -1 for turns in said["no_rope_layers"]),
        windows=windows_by(said["layer_types"], window, rest.max_positions),
    )


def by_layer(hf: dict, num_layers: int) -> dict:
    """What config.json says of each layer, or would if it said it: 1 in `no_rope_layers` is a layer that rotates."""
    every = positive_int(hf, "no_rope_layer_interval", default=4)
    turns = hf.get("no_rope_layers")
    if turns is None:
        turns = [int((i + 1) % every != 0) for i in range(num_layers)]
    if not isinstance(turns, list) or len(turns) != num_layers or any(x not in (0, 1) for x in turns):
        raise UserError(f'config.json: "no_rope_layers" is {turns!r:.60}; {num_layers} of 0 or 1 are needed')
    slides = flag(hf, "use_sliding_window", default=False) and hf.get("sliding_window") is not None
    kinds = [SLIDING if slides and not turned else FULL for turned in turns]
    return {"no_rope_layers": turns, "layer_types": layer_types(hf, num_layers, kinds)}
