"""The part of a config.json that is about text: checkpoints of text and images have it inside, beside their images'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from adaspec_jax.errors import UserError

Tensor = TypeVar("Tensor")
READ = {"gemma3": "gemma3_text"}  # of text and images, and the family that its text part is
# What the text part of such a file leaves to its class.
_UNSAID: dict[str, dict[str, Any]] = {
    "gemma3": {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
}
_OF_BOTH = ("eos_token_id", "bos_token_id", "pad_token_id", "dtype", "torch_dtype", "quantization_config")
# Where the text part's tensors lie, in transformers 4 and 5, and where they lie in a model of text alone.
PLACES = {"language_model.model.": "model.", "model.language_model.": "model.", "language_model.lm_head.": "lm_head."}
PLACES |= {"lm_head.": "lm_head."}
_IMAGES, _SOUND, _ALL = "text and images", "text and sound", "text, images and sound"
_OTHERS = {
    **dict.fromkeys(("gemma3n", "phi4_multimodal", "phi4mm", "qwen2_5_omni", "qwen3_omni_moe"), _ALL),
    **dict.fromkeys(("mistral3", "pixtral", "llama4", "mllama", "llava", "llava_next", "llava_onevision"), _IMAGES),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "paligemma", "phi3_v"), _IMAGES),
    **dict.fromkeys(("idefics2", "idefics3", "smolvlm", "internvl", "internvl_chat", "aya_vision"), _IMAGES),
    **dict.fromkeys(("qwen2_audio", "voxtral", "granite_speech", "ultravox"), _SOUND),
    **dict.fromkeys(("whisper", "wav2vec2", "hubert", "moonshine", "wav2vec2-bert"), "sound"),
    **dict.fromkeys(("clip", "siglip", "siglip2", "vit", "dinov2", "dinov3_vit", "pixtral_vision"), "images"),
}


def text_part(hf: Mapping[str, Any], place: object = "config.json") -> dict[str, Any]:
    """The config.json of the text model alone; `hf` itself, where it is that of one.

    UserError, naming the `place`, for a checkpoint of images or sound whose text part is not read.
    """
    kind = hf.get("model_type")
    if isinstance(kind, str) and kind in READ:
        inside = hf.get("text_config")
        if not isinstance(inside, Mapping):
            raise UserError(f'{place}: model_type "{kind}", of text and images, has no "text_config"')
        both = {key: hf[key] for key in _OF_BOTH if hf.get(key) is not None}
        return _UNSAID[kind] | both | dict(inside) | {"model_type": READ[kind]}
    if (of := kind_of_checkpoint(hf)) is None:
        return dict(hf)
    read = ", ".join(READ)
    what = f"a checkpoint of {of}, of which no part is read" if "text" in of else f"a model of {of} without text"
    raise UserError(
        f'{place}: model_type "{kind}" is {what}; of such checkpoints the text part of {read} alone is: give the '
        "directory or the hub name of a model of text"
    )


def kind_of_checkpoint(hf: Mapping[str, Any]) -> str | None:
    """What a config.json's model is of, where that is not text alone."""
    if (known := _OTHERS.get(str(hf.get("model_type")))) is not None:
        return known
    parts = {"text": "text_config", "images": "vision_config", "sound": "audio_config"}
    found = [name for name, key in parts.items() if isinstance(hf.get(key), Mapping)]
    return None if found in ([], ["text"]) else " and ".join(found)


def note_on(hf: Mapping[str, Any]) -> str | None:
    """In a line, what of a checkpoint is left unread; None where nothing is."""
    kind = hf.get("model_type")
    if not isinstance(kind, str) or kind not in READ:
        return None
    return f'model_type "{kind}" is of text and images; its text part is read, as {READ[kind]}'


def of_text(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the text part, by their names in a model of text alone."""
    found = {}
    for name, tensor in tensors.items():
        place = next((place for place in PLACES if name.startswith(place)), None)
        if place is not None:
            found[PLACES[place] + name.removeprefix(place)] = tensor
    return found
