"""What a config.json says of windows: to how many tokens, itself included, one attends in each layer."""

from __future__ import annotations

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.models.families.hf_config import positive_int

FULL, SLIDING = "full_attention", "sliding_attention"


def window_of(hf: dict, *, default: int | None = None) -> int | None:
    """`sliding_window`, None where it is null; UserError unless an integer above 0."""
    window = hf.get("sliding_window", default)
    return None if window is None else positive_int(hf, "sliding_window", default=default)


def layer_types(hf: dict, num_layers: int, default: list[str]) -> list[str]:
    """`layer_types`, or `default` where it is absent; UserError unless one known kind per layer."""
    kinds = hf.get("layer_types")
    if kinds is None:
        return default
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise UserError(f'config.json: "layer_types" is {kinds!r:.60}; {num_layers} kinds, one per layer, are needed')
    if other := [kind for kind in kinds if kind not in (FULL, SLIDING)]:
        hint = did_you_mean(str(other[0]), (FULL, SLIDING))
        raise UserError(f'config.json: "layer_types" has "{other[0]}", which is not supported{hint}')
    return kinds


def alike(window: int | None, num_layers: int) -> list[str]:
    """The kinds of layers that all have this window; None: none."""
    return [FULL if window is None else SLIDING] * num_layers


def windows_by(kinds: list[str], window: int | None, max_positions: int) -> tuple[int, ...]:
    """Per layer, 0 for those that attend to all; () where no layer's window hides any text."""
    if SLIDING in kinds and window is None:
        raise UserError(
            f'config.json: by "layer_types", {kinds.count(SLIDING)} of {len(kinds)} layers attend to a window, and '
            '"sliding_window" does not say how large it is'
        )
    windows = tuple((window or 0) if kind == SLIDING else 0 for kind in kinds)
    return windows if any(0 < size < max_positions for size in windows) else ()
