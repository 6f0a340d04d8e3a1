"""The architecture that a config.json describes, as the dataclass of its family: `Architecture.hf_config` backwards.

A key that the file lacks has its family's default for files, which is not the dataclass's: that is a known model's.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from adaspec_jax.config.architectures import (
    GPT2,
    Architecture,
    CodeGen,
    GPTNeoX,
    Llama,
    Llama3Rope,
    Phi,
    Qwen2,
    Qwen3,
)
from adaspec_jax.errors import UserError, did_you_mean

FAMILIES: dict[str, type[Architecture]] = {
    cls.model_type: cls for cls in (CodeGen, GPT2, GPTNeoX, Llama, Phi, Qwen2, Qwen3)
}
_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_NEEDED += ("n_embd", "n_layer", "n_head")
_QWEN = {"num_key_value_heads": 32, "rope_theta": 10_000.0, "tie_word_embeddings": False}
_ABSENT: dict[type[Architecture], dict[str, Any]] = {
    CodeGen: {"rotary_dim": 64},
    Llama: {
        "max_position_embeddings": 2048,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
    Qwen2: _QWEN,
    Qwen3: _QWEN | {"max_position_embeddings": 32768},
}
_ROTARY = {"rope_theta": "rope_theta", "partial_rotary_factor": "partial_rotary_factor"}  # in the new place: in the old
_ROTARY_OF = {GPTNeoX: {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}}
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


def architecture_of(hf: Mapping[str, Any], *, origin: str = "config.json") -> Architecture:
    """What a config.json says, as its family's dataclass; UserError, naming `origin`, for what is no such model's.

    Windows of attention are left out: one that hides text is refused where the model is loaded, any other is none.
    """
    kind = hf.get("model_type")
    if kind not in FAMILIES:
        hint = did_you_mean(str(kind), FAMILIES)
        hint = "" if hint.startswith("; known") else hint
        raise UserError(f"{origin}: model_type {kind!r} is no family here; there are {', '.join(FAMILIES)}{hint}")
    cls = FAMILIES[kind]
    types_of, names = typing.get_type_hints(cls), [item.name for item in dataclasses.fields(cls)]
    if missing := [name for name in names if name in _NEEDED and name not in hf]:
        raise UserError(f'{origin} has no "{missing[0]}", which a {kind} model needs')
    rope = _rope(hf, origin, stretched="rope_scaling" in names)
    given = {**_ABSENT.get(cls, {}), **hf, "use_sliding_window": False}
    for new, old in _ROTARY_OF.get(cls, _ROTARY).items():
        given |= {old: rope[new]} if new in rope else {}
    if given.get("num_key_value_heads") is None:
        given["num_key_value_heads"] = hf.get("num_attention_heads")
    values = {
        name: _checked(given[name], types_of[name], f'{origin}: "{name}"')
        for name in names
        if name in given and name not in ("rope_scaling", "model_type")
    }
    architecture = cls(**values)
    if "rope_scaling" in names:
        stretch = _stretch(rope, architecture.max_position_embeddings, origin)
        architecture.rope_scaling = stretch or (Llama3Rope(rope_type="default") if cls is Llama else None)
    return architecture


def _rope(hf: Mapping[str, Any], origin: str, *, stretched: bool) -> Mapping[str, Any]:
    """What the file says of rotation beside its plain keys, in its old or new place."""
    key = "rope_scaling" if hf.get("rope_scaling") else "rope_parameters"
    rope = hf.get(key) or {}
    if not isinstance(rope, Mapping):
        raise UserError(f'{origin}: "{key}" is {rope!r}; an object is needed')
    known = ("default", "llama3") if stretched else ("default",)
    if (kind := _kind(rope)) not in known:
        names = " and ".join(f'"{name}"' for name in known)
        raise UserError(f'{origin}: rope type "{kind}" in "{key}" is not supported; only {names}')
    return rope


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _stretch(rope: Mapping[str, Any], max_positions: int, origin: str) -> Llama3Rope | None:
    if _kind(rope) == "default":
        return None
    given = {"original_max_position_embeddings": max_positions, **rope}
    values = {}
    for name, wanted in typing.get_type_hints(Llama3Rope).items():
        if name != "rope_type" and name not in given:
            raise UserError(f'{origin}: rope type "llama3" without "{name}"')
        values[name] = "llama3" if name == "rope_type" else _checked(given[name], wanted, f'{origin}: "{name}"')
    return Llama3Rope(**values)


def _checked(value: Any, wanted: Any, where: str) -> Any:
    """The value as its field's type; UserError where it is of another."""
    kinds = typing.get_args(wanted) or (wanted,)
    if type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    needed = " or ".join(_WORDS[kind] for kind in kinds)
    raise UserError(f"{where} is {'null' if value is None else repr(value)}; {needed} is needed")
