"""Rotary position embeddings, and how their frequencies are stretched for longer contexts than first trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array


class Scaling(Protocol):
    """A stretch of the frequencies [R], radians per position; frozen, so that equal ones are equal."""

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by."""
        ...

    def __call__(self, frequencies_R: np.ndarray) -> np.ndarray:
        """The stretched frequencies, float32."""
        ...


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretch: slow waves are slowed by `factor`, fast ones kept, those between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    magnitude = 1.0

    def __call__(self, frequencies_R: np.ndarray) -> np.ndarray:
        """The stretched frequencies, radians per position, float32."""
        turns_R = np.float32(self.original_positions) * frequencies_R / np.float32(2 * np.pi)  # in the first context
        kept_R = (turns_R - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept_R = np.clip(kept_R, 0, 1).astype(np.float32)
        return (1 - kept_R) * frequencies_R / np.float32(self.factor) + kept_R * frequencies_R


@dataclass(frozen=True)
class Slowed:
    """Every frequency divided: by one factor (positions interpolated, Chen et al. 2023, arXiv 2306.15595), or each by
    its own (LongRoPE, Ding et al. 2024, arXiv 2402.13753)."""

    factors: tuple[float, ...]  # one, or one for each
    magnitude: float = 1.0

    def __call__(self, frequencies_R: np.ndarray) -> np.ndarray:
        """The stretched frequencies, radians per position, float32."""
        return (frequencies_R / np.asarray(self.factors, np.float32)).astype(np.float32)


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071, eqs. 17 to 23): slow waves interpolated, fast ones kept.

    The ramp runs over the features that turn `slow` to `fast` times in the first context.
    """

    factor: float
    original_positions: int
    theta: float
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True  # the ramp begins and ends at whole features
    magnitude: float = 1.0

    def __call__(self, frequencies_R: np.ndarray) -> np.ndarray:
        """The stretched frequencies, radians per position, float32."""
        count = len(frequencies_R)
        low, high = (self._feature(turns, 2 * count) for turns in (self.fast, self.slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * count - 1)
        ramp_R = (np.arange(count, dtype=np.float32) - low) / np.float32(max(high - low, 0.001))
        ramp_R = np.clip(ramp_R, 0, 1).astype(np.float32)
        return frequencies_R / np.float32(self.factor) * ramp_R + frequencies_R * (1 - ramp_R)

    def _feature(self, turns: float, size: int) -> float:
        """Which feature turns so often in the first context."""
        return size * math.log(self.original_positions / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


def rotary_angles(
    positions_BT: Array, *, size: int, theta: float, scaling: Scaling | None = None
) -> tuple[Array, Array]:
    """Cosines and sines [B, T, 1, size / 2], float32, for `size` features (RoFormer, arXiv 2104.09864, eq. 34)."""
    exponents_R = np.arange(0, size, 2, dtype=np.float32) / np.float32(max(size, 1))
    frequencies_R = (1.0 / np.float32(theta) ** exponents_R).astype(np.float32)
    if scaling is not None:
        frequencies_R = scaling(frequencies_R)
    angles_BT1R = positions_BT.astype(jnp.float32)[:, :, None, None] * frequencies_R[None, None, None, :]
    rotation = jnp.cos(angles_BT1R), jnp.sin(angles_BT1R)
    if scaling is None or scaling.magnitude == 1.0:
        return rotation
    return rotation[0] * scaling.magnitude, rotation[1] * scaling.magnitude


def rotate(heads_BTHK: Array, rotation: tuple[Array, Array], *, interleaved: bool) -> Array:
    """The first rotary_dim features of every head rotated by position, computed in float32."""
    cos_BT1R, sin_BT1R = rotation
    half = cos_BT1R.shape[-1]
    turned, passed = jnp.split(heads_BTHK, [2 * half], axis=-1)
    turned = turned.astype(jnp.float32)
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., :half], turned[..., half:]
    rotated = (first * cos_BT1R - second * sin_BT1R, second * cos_BT1R + first * sin_BT1R)
    turned = jnp.stack(rotated, axis=-1).reshape(turned.shape) if interleaved else jnp.concatenate(rotated, axis=-1)
    return jnp.concatenate([turned.astype(heads_BTHK.dtype), passed], axis=-1)
