"""Reading a config.json: each value checked where it is used, so that a mistake is one line that names the key."""

from __future__ import annotations

import math

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.decoder_config import ACTIVATIONS
from adaspec_jax.models.rotary import Llama3Scaling


def positive_int(hf: dict, key: str, *, default: int | None = None) -> int:
    """`hf[key]`, or `default` where it is absent or null; UserError unless that is an integer above zero."""
    value = hf.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = "is missing" if key not in hf else f"is {value!r}"
        raise UserError(f'config.json: "{key}" {found}; a positive integer is needed')
    return value


def number(hf: dict, key: str, *, default: float | None = None) -> float:
    """`hf[key]`, or `default` where it is absent or null; UserError unless that is a finite number above zero."""
    value = hf.get(key)
    if value is None and default is not None:
        return float(default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        found = "is missing" if key not in hf else f"is {value!r}"
        raise UserError(f'config.json: "{key}" {found}; a number above zero is needed')
    return float(value)


def flag(hf: dict, key: str, *, default: bool) -> bool:
    """`hf[key]`, or `default` where it is absent or null; UserError unless that is true or false."""
    value = hf.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f'config.json: "{key}" is {value!r}; true or false is needed')
    return value


def refuse(hf: dict, key: str, *, why: str) -> None:
    """UserError where the flag `key` is set."""
    if flag(hf, key, default=False):
        raise UserError(f'config.json: "{key}" is true, which is not supported: {why}')


def activation(hf: dict, key: str, *, default: str) -> str:
    """The name of a known activation; UserError otherwise."""
    name = str(hf.get(key, default))
    if name not in ACTIVATIONS:
        raise UserError(f'config.json: "{key}" is the unknown activation "{name}"{did_you_mean(name, ACTIVATIONS)}')
    return name


def head_size(hf: dict, width_key: str, heads_key: str) -> int:
    """Width over heads; UserError where it is not whole."""
    width, heads = positive_int(hf, width_key), positive_int(hf, heads_key)
    if width % heads:
        raise UserError(f"config.json: {width_key} {width} is not a multiple of {heads_key} {heads}")
    return width // heads


def rope_parameters(hf: dict, *, known: tuple[str, ...] = ("default",)) -> dict:
    """The new `rope_parameters` or old `rope_scaling` entry, {} if absent; UserError for any type but the `known`."""
    key = "rope_scaling" if hf.get("rope_scaling") else "rope_parameters"
    rope = hf.get(key) or {}
    if not isinstance(rope, dict):
        raise UserError(f'config.json: the rope parameters in "{key}" are {rope!r}; an object is needed')
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in known:
        names = " and ".join(f'"{name}"' for name in known)
        raise UserError(f'config.json: rope type "{kind}" in "{key}" is not supported; only {names}')
    if nested := [name for name, value in rope.items() if isinstance(value, dict)]:
        raise UserError(f'config.json: "{key}" differs by kind of layer ("{nested[0]}"), which is not supported')
    return rope


def rope_theta(hf: dict, rope: dict, *, default: float = 10_000.0) -> float:
    """The base of the rotary frequencies, from the new place or the old one."""
    return number(rope, "rope_theta", default=number(hf, "rope_theta", default=default))


def rotary_fraction(hf: dict, rope: dict, *, default: float) -> float:
    """The share of each head that rotates, from the new place or the old one; at most 1."""
    fraction = number(rope, "partial_rotary_factor", default=number(hf, "partial_rotary_factor", default=default))
    if fraction > 1:
        raise UserError(f'config.json: "partial_rotary_factor" is {fraction}; at most 1 is needed')
    return fraction


def rope_scaling(hf: dict, rope: dict) -> Llama3Scaling | None:
    """How `rope` stretches the frequencies, None for the default type."""
    if rope.get("rope_type", rope.get("type", "default")) == "default":
        return None
    low, high = number(rope, "low_freq_factor"), number(rope, "high_freq_factor")
    if low >= high:
        raise UserError(f'config.json: "low_freq_factor" {low} must be below "high_freq_factor" {high}')
    return Llama3Scaling(
        factor=number(rope, "factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_positions=positive_int(
            rope, "original_max_position_embeddings", default=hf.get("max_position_embeddings")
        ),
    )


def first_eos(hf: dict) -> int:
    """The first end-of-text id of the config, or -1 when it names none."""
    eos = hf.get("eos_token_id")
    if isinstance(eos, list):
        eos = eos[0] if eos else None
    return -1 if eos is None else int(eos)
