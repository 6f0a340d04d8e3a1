"""Reading a config.json: each value checked where it is used, so that a mistake is one line that names the key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from adaspec_jax.drafter_file import BLOCK, BLOCK_MASK, MASK
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.decoder_config import ACTIVATIONS

_GREATEST = sys.float_info.max  # a whole number may be beyond it

LONGEST_BLOCK = 64


def positive_int(hf: dict, key: str, *, default: int | None = None, null: int | None = None) -> int:
    """`hf[key]`, `default` where it is absent, `null` where it is null; UserError unless an integer above zero."""
    return _checked(hf, key, default, null, lambda x: type(x) is int and 0 < x < 2**31, "a positive integer of 32 bits")


def whole_number(hf: dict, key: str, *, default: int) -> int:
    """`hf[key]`, or `default` where it is absent; UserError unless that is zero or an integer above it."""
    return _checked(hf, key, default, None, lambda x: type(x) is int and x >= 0, "a whole number")


def number(hf: dict, key: str, *, default: float | None = None, null: float | None = None) -> float:
    """`hf[key]`, `default` where it is absent, `null` where it is null; UserError unless a finite number above zero."""
    fits = lambda x: type(x) in (int, float) and 0 < x <= _GREATEST  # noqa: E731
    return float(_checked(hf, key, default, null, fits, "a number above zero"))


def flag(hf: dict, key: str, *, default: bool) -> bool:
    """`hf[key]`, or `default` where it is absent; UserError unless that is true or false."""
    return _checked(hf, key, default, None, lambda x: type(x) is bool, "true or false")


def refuse_null(hf: dict, *keys: str) -> None:
    """UserError for a key that is there and null, where transformers takes that for no size."""
    for key in keys:
        if key in hf:
            positive_int(hf, key)


def none_or_number(hf: dict, key: str, *, default: float | None = None) -> float:
    """`hf[key]`, or `default` where it is absent; 0 where that is null; UserError unless a number above zero."""
    return 0.0 if hf.get(key, default) is None else number(hf, key, default=default)


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


def kv_heads(hf: dict, num_heads: int) -> int:
    """How many heads of keys and values the query heads share; UserError where those cannot be shared out evenly."""
    kv = positive_int(hf, "num_key_value_heads", default=num_heads, null=num_heads)
    if num_heads % kv:
        raise UserError(f'config.json: {num_heads} heads are not a multiple of "num_key_value_heads" {kv}')
    return kv


def in_pairs(size: int, head_dim: int, *, key: str) -> int:
    """`size`; UserError that blames `key` unless so many features of a head can rotate."""
    if size % 2 or size > head_dim:
        raise UserError(f'config.json: "{key}" has {size} of {head_dim} features per head rotate; pairs are needed')
    return size


def first_eos(hf: dict) -> int:
    """The first end-of-text id of the config, or -1 when it names none; UserError for what is no token's id."""
    eos = hf.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if any(type(token) is not int or token < 0 for token in ids):
        raise UserError(f'config.json: "eos_token_id" is {eos!r}; a token\'s id, a list of them or null is needed')
    return ids[0] if ids else -1


def check_ids(hf: dict) -> None:
    """UserError for a beginning or a padding, both optional, that is no number."""
    for key in ("bos_token_id", "pad_token_id"):
        if hf.get(key) is not None and type(hf[key]) is not int:
            raise UserError(f'config.json: "{key}" is {hf[key]!r}; a token\'s id or null is needed')


def masks_said(hf: dict, vocab_size: int) -> dict[str, int]:
    """`mask_token` and `mask_block` of a decoder that guesses in one pass, neither of another; UserError else."""
    name = BLOCK_MASK if hf.get(BLOCK_MASK) is not None else MASK
    token, block = hf.get(name), hf.get(BLOCK)
    if token is None:
        return {}
    if type(token) is not int or not 0 <= token < vocab_size:
        raise UserError(f'config.json: "{name}" is {token!r}; the id of one of {vocab_size} vocabulary rows is needed')
    if name == MASK:
        return {"mask_token": token}
    if type(block) is not int or not 2 <= block <= LONGEST_BLOCK:
        raise UserError(f'config.json: "{BLOCK}" is {block!r}; how many guesses a block has is needed, 2 to 64')
    return {"mask_token": token, "mask_block": block}


def _checked(hf: dict, key: str, default: Any, null: Any, fits: Callable[[Any], bool], needed: str) -> Any:
    value = hf.get(key, default)
    if value is None and key in hf:
        value = null
    if not fits(value):
        found = "is missing" if key not in hf else f"is {'null' if value is None else repr(value)}"
        raise UserError(f'config.json: "{key}" {found}; {needed} is needed')
    return value
