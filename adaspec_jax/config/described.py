"""The architecture that a config.json describes, as the dataclass of its family: `Architecture.hf_config` backwards.

A key that the file lacks has its family's default for files, which is not the dataclass's: that is a known model's.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from adaspec_jax.config.architectures import FAMILIES, Architecture, Described, Llama, Llama3Rope, Rope
from adaspec_jax.config.architectures.base import FULL, SLIDING
from adaspec_jax.config.architectures.rotary import CONTEXT
from adaspec_jax.errors import UserError
from adaspec_jax.text_part import text_part

_NEEDED: tuple[str, ...] = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
_NEEDED += ("n_embd", "n_layer", "n_head")
_ORIGINAL = "original_max_position_embeddings"
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


def architecture_of(hf: Mapping[str, Any], *, origin: str = "config.json") -> Architecture:
    """What a config.json says, as its family's dataclass; UserError, naming `origin`, for what is no such model's.

    As `Described` where its family has none, or this has no place for what it says.
    """
    hf = text_part(hf, origin)
    kind = hf.get("model_type")
    if not isinstance(kind, str):
        raise UserError(f'{origin} has no "model_type" of a language model')
    if kind not in FAMILIES:
        return Described.of(hf)
    cls: Any = FAMILIES[kind]
    types_of, names = typing.get_type_hints(cls), [item.name for item in dataclasses.fields(cls)]
    if missing := [name for name in names if name in _NEEDED and name not in {**cls.ABSENT, **hf}]:
        raise UserError(f'{origin} has no "{missing[0]}", which a {kind} model needs')
    rope, local = _ropes(hf, cls, origin)
    if _kind(local) != "default":
        return Described.of(hf)
    given = {**cls.ABSENT, **hf}
    given |= {name: hf[other] for name, other in cls.ALSO.items() if other in hf and name not in hf}
    for keys, said in ((cls.ROTARY, rope), (cls.LOCAL, local)):
        given |= {old: said[new] for new, old in keys.items() if new in said}
    if given.get("num_key_value_heads") is None:
        given["num_key_value_heads"] = given.get("num_attention_heads")
    values = {
        name: _checked(given[name], types_of[name], f'{origin}: "{name}"')
        for name in names
        if name in given and name not in ("rope_scaling", "model_type")
    }
    architecture = cls(**_silent(cls, given) | values)
    if "rope_scaling" in names:
        stretch = _stretch(hf, rope, cls, architecture.max_position_embeddings, origin)
        architecture.rope_scaling = stretch or (Llama3Rope(rope_type="default") if cls is Llama else None)
    return architecture.in_short() if architecture.mistake() is None else architecture


def _silent(cls: type[Architecture], given: Mapping[str, Any]) -> dict[str, None]:
    """What may be None, and the file says nothing of."""
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]
    return {name: None for name in names if types.NoneType in typing.get_args(hints[name]) and name not in given}


def _ropes(hf: Mapping[str, Any], cls: Any, origin: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the file says of rotation, in its old or new place: of layers that attend to all, and of those with windows.

    The plain keys beside it, of its old form, are not looked at.
    """
    key = "rope_scaling" if hf.get("rope_scaling") else "rope_parameters"
    rope: Any = hf.get(key) or {}
    local: Mapping[str, Any] = {}
    if not isinstance(rope, Mapping):
        raise UserError(f'{origin}: "{key}" is {rope!r}; an object is needed')
    if nested := [name for name, value in rope.items() if isinstance(value, Mapping)]:
        if not cls.LOCAL:
            raise UserError(
                f'{origin}: "{key}" differs by kind of layer ("{nested[0]}"), which {cls.model_type} has not'
            )
        rope, local = rope.get(FULL) or {}, rope.get(SLIDING) or {}
    stretched = any(item.name == "rope_scaling" for item in dataclasses.fields(cls))
    known = ("default", *cls.STRETCHES) if stretched else ("default",)
    for said in (rope, local):
        if (kind := _kind(said)) not in known:
            names = " and ".join(f'"{name}"' for name in known)
            raise UserError(f'{origin}: rope type "{kind}" in "{key}" is not supported; only {names}')
    return rope, local


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _stretch(
    hf: Mapping[str, Any], rope: Mapping[str, Any], cls: type[Architecture], max_positions: int, origin: str
) -> Rope | None:
    kind = _kind(rope)
    if kind == "default":
        return None
    given = {_ORIGINAL: max_positions, **rope} if kind == "llama3" else dict(rope)
    if _ORIGINAL in hf:
        given[_ORIGINAL] = max_positions if hf[_ORIGINAL] is None else hf[_ORIGINAL]
    if CONTEXT in hf:
        given[CONTEXT] = hf[CONTEXT]
    values: dict[str, Any] = {}
    for name, wanted in typing.get_type_hints(cls.STRETCHES[kind]).items():
        if name == "rope_type":
            continue
        if name not in given and types.NoneType not in typing.get_args(wanted):
            raise UserError(f'{origin}: rope type "{kind}" without "{name}"')
        values[name] = _checked(given.get(name), wanted, f'{origin}: "{name}"')
    return cls.STRETCHES[kind](**values)


def _checked(value: Any, wanted: Any, where: str) -> Any:
    """The value as its field's type; UserError where it is of another."""
    union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    kinds = typing.get_args(wanted) if union else (wanted,)
    for kind in kinds:
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            return tuple(_checked(item, typing.get_args(kind)[0], where) for item in value)
    if type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    needed = " or ".join(_WORDS.get(kind, "a list") for kind in kinds)
    raise UserError(f"{where} is {'null' if value is None else repr(value)}; {needed} is needed")
