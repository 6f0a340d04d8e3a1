"""Reading a config.json: each value checked where it is used, so that a mistake is one line that names the key."""

from __future__ import annotations

from adaspec_jax.errors import UserError


def positive_int(hf: dict, key: str) -> int:
    """`hf[key]`; UserError unless it is an integer above zero."""
    value = hf.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = "is missing" if key not in hf else f"is {value!r}"
        raise UserError(f'config.json: "{key}" {found}; a positive integer is needed')
    return value


def rope_parameters(hf: dict) -> dict:
    """The new `rope_parameters` or old `rope_scaling` entry, {} if absent; UserError for any type but "default"."""
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise UserError(f"config.json: the rope parameters are {rope!r}; an object is needed")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f'config.json: rope type "{kind}" is not supported; only "default" is')
    return rope


def first_eos(hf: dict) -> int:
    """The first end-of-text id of the config, or -1 when it names none."""
    eos = hf.get("eos_token_id")
    if isinstance(eos, list):
        eos = eos[0] if eos else None
    return -1 if eos is None else int(eos)
