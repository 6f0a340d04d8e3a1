"""Gemma: Llama with norms by 1 + scale, embeddings times the root of their width, and a head tied to them."""

from __future__ import annotations

from dataclasses import replace

from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import llama
from adaspec_jax.models.families.hf_config import refuse, refuse_null

ARCHITECTURE = "GemmaForCausalLM"
IGNORED = llama.IGNORED
# Of a config.json that lacks the keys.
DEFAULTS = {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 8192}
DEFAULTS |= {"num_key_value_heads": 16, "tie_word_embeddings": True}
table = llama.table


def config(hf: dict) -> DecoderConfig:
    """The decoder of a Gemma config.json."""
    hf = DEFAULTS | hf
    if hf.get("hidden_act") == "gelu":  # what the first files say, and not what the model was trained with
        hf = hf | {"hidden_act": "gelu_pytorch_tanh"}
    return replace(plain(hf), model_type="gemma")


def plain(hf: dict) -> DecoderConfig:
    """What all Gemmas have."""
    if hf.get("use_bidirectional_attention") is not None:
        refuse(hf, "use_bidirectional_attention", why="a text is written from its start to its end")
    refuse_null(hf, "head_dim", "num_key_value_heads")
    rest = llama.config(hf | {"mlp_bias": False})
    return replace(rest, norm_offset=True, embed_scale=rest.hidden_size**0.5)
