"""What a config.json says of rotation, in its old or its new place, and by kind of layer where it differs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.families.hf_config import flag, in_pairs, number, positive_int
from adaspec_jax.models.rotary import Llama3Scaling, Scaling, Slowed, YarnScaling

KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
_MOST = 1_000_000  # of a factor
CONTEXT = "adaspec_context"  # in config.json: for how many tokens the kinds that go by a text's length are taken


class Rope(NamedTuple):
    """How queries and keys are rotated."""

    theta: float
    scaling: Scaling | None
    max_positions: int  # of texts that it is right for


def rope_parameters(hf: dict, *, known: tuple[str, ...] = KINDS) -> dict:
    """The new `rope_parameters` or old `rope_scaling` entry, {} if absent; UserError for any type but the `known`."""
    key, rope = _place(hf)
    if nested := [name for name, value in rope.items() if isinstance(value, dict)]:
        raise UserError(f'config.json: "{key}" differs by kind of layer ("{nested[0]}"), which is not supported')
    return _of_known_kind(rope, key, known)


def rope_by_kind(hf: dict, kinds: tuple[str, ...], *, known: tuple[str, ...] = KINDS) -> dict[str, dict] | None:
    """`rope_parameters` where they are one entry per kind of layer; None where they are not."""
    key, rope = _place(hf)
    if not any(isinstance(value, dict) for value in rope.values()):
        return None
    if other := [name for name in rope if name not in kinds]:
        raise UserError(f'config.json: "{key}" has "{other[0]}"{did_you_mean(other[0], kinds)}')
    inside = {kind: rope.get(kind) or {} for kind in kinds}
    if wrong := [kind for kind, value in inside.items() if not isinstance(value, dict)]:
        raise UserError(f'config.json: the rope parameters of "{wrong[0]}" are {rope[wrong[0]]!r}; an object is needed')
    return {kind: _of_known_kind(value, f"{key}.{kind}", known) for kind, value in inside.items()}


def rope_of(hf: dict, rope: dict, size: int, max_positions: int, *, theta: float, old: str = "rope_theta") -> Rope:
    """The rotation of `size` features that `rope` describes, as transformers computes it.

    `theta` is the base where neither `rope` nor the `old` key says one. The kinds whose frequencies depend on a text's
    length, "dynamic" and "longrope", are taken for texts within the first context, or of `adaspec_context` tokens:
    then keys in a cache stay right while a text grows.
    """
    theta = number(rope, "rope_theta", default=number(hf, old, default=theta))
    kind = _kind(rope)
    original = positive_int(hf, "original_max_position_embeddings", default=max_positions, null=max_positions)
    if "original_max_position_embeddings" not in hf:
        original = positive_int(rope, "original_max_position_embeddings", default=max_positions)
    asked = positive_int(hf, CONTEXT) if CONTEXT in hf else None
    if kind == "linear":
        return Rope(theta, Slowed((_factor(rope),)), max_positions)
    if kind == "dynamic":
        if size < 4:
            raise UserError(f'config.json: rope type "dynamic" needs heads that rotate 4 features or more, not {size}')
        factor, grown = _factor(rope), max(asked or 0, max_positions) / max_positions
        theta *= (factor * grown - (factor - 1)) ** (size / (size - 2))
        return Rope(theta, None, max(asked or 0, max_positions))
    if kind == "yarn":
        return Rope(theta, _yarn(rope, theta, original, max_positions), max_positions)
    if kind == "longrope":
        return _long(rope, theta, size, original, max_positions, asked)
    if kind == "llama3":
        return Rope(theta, _llama3(rope, original), max_positions)
    return Rope(theta, None, max_positions)


def rotary_size(
    hf: dict,
    rope: dict,
    head_dim: int,
    *,
    default: float,
    null: float | None = None,
    old: str = "partial_rotary_factor",
) -> int:
    """How many features of a head rotate, from their share in the new place or under `old`, where null is `null`."""
    if "partial_rotary_factor" in rope:
        key, share = "partial_rotary_factor", number(rope, "partial_rotary_factor")
    else:
        key, share = old, number(hf, old, default=default, null=null)
    if share > 1:
        raise UserError(f'config.json: "{key}" is {share}; at most 1 is needed')
    return in_pairs(int(head_dim * share), head_dim, key=key)


def _place(hf: dict) -> tuple[str, dict]:
    key = "rope_scaling" if hf.get("rope_scaling") else "rope_parameters"
    rope = {} if hf.get(key) is None else hf[key]
    if not isinstance(rope, dict):
        raise UserError(f'config.json: the rope parameters in "{key}" are {rope!r}; an object is needed')
    return key, rope


def _of_known_kind(rope: dict, key: str, known: tuple[str, ...]) -> dict:
    if (kind := _kind(rope)) not in known:
        names = " and ".join(f'"{name}"' for name in known)
        raise UserError(f'config.json: rope type "{kind}" in "{key}" is not supported; only {names}')
    return rope


def _kind(rope: dict) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _factor(rope: dict) -> float:
    if not 1 <= (factor := number(rope, "factor")) <= _MOST:
        raise UserError(f'config.json: the rope "factor" is {factor:g}; a number from 1 to {_MOST:,} is needed')
    return factor


def _yarn(rope: dict, theta: float, original: int, max_positions: int) -> YarnScaling:
    factor = max_positions / original if rope.get("factor") is None else _factor(rope)
    if theta <= 1:
        raise UserError(f'config.json: rope type "yarn" needs a "rope_theta" above 1, not {theta:g}')
    stretch = lambda scale: 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0  # noqa: E731
    magnitude = stretch(1.0)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        magnitude = stretch(number(rope, "mscale")) / stretch(number(rope, "mscale_all_dim"))
    return YarnScaling(
        factor=factor,
        original_positions=original,
        theta=theta,
        fast=number(rope, "beta_fast", default=32.0, null=32.0),
        slow=number(rope, "beta_slow", default=1.0, null=1.0),
        truncate=flag(rope, "truncate", default=True),
        magnitude=number(rope, "attention_factor", default=magnitude, null=magnitude),
    )


def _long(rope: dict, theta: float, size: int, original: int, max_positions: int, asked: int | None) -> Rope:
    if original < 2:
        raise UserError('config.json: rope type "longrope" needs an "original_max_position_embeddings" above 1')
    factor = max_positions / original if rope.get("factor") is None else _factor(rope)
    magnitude = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    context = min(asked or original, max_positions)
    name = "long_factor" if context > original else "short_factor"
    for key in ("short_factor", "long_factor"):
        factors = rope.get(key)
        fits = isinstance(factors, list) and all(type(x) in (int, float) and x > 0 for x in factors)
        if not fits or len(factors or ()) != size // 2:
            raise UserError(f'config.json: "{key}" is {factors!r:.40}; a list of {size // 2} numbers above 0 is needed')
    magnitude = number(rope, "attention_factor", default=magnitude, null=magnitude)
    return Rope(theta, Slowed(tuple(float(x) for x in rope[name]), magnitude), context)


def _llama3(rope: dict, original: int) -> Llama3Scaling:
    low, high = number(rope, "low_freq_factor"), number(rope, "high_freq_factor")
    if low >= high:
        raise UserError(f'config.json: "low_freq_factor" {low} must be below "high_freq_factor" {high}')
    return Llama3Scaling(
        factor=number(rope, "factor"), low_freq_factor=low, high_freq_factor=high, original_positions=original
    )
