"""Rotary position embeddings, and how their frequencies are stretched for longer contexts than first trained on."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretch: slow waves are slowed by `factor`, fast ones kept, those between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    def __call__(self, frequencies_R: np.ndarray) -> np.ndarray:
        """The stretched frequencies, radians per position, float32."""
        turns_R = np.float32(self.original_positions) * frequencies_R / np.float32(2 * np.pi)  # in the first context
        kept_R = (turns_R - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept_R = np.clip(kept_R, 0, 1).astype(np.float32)
        return (1 - kept_R) * frequencies_R / np.float32(self.factor) + kept_R * frequencies_R


def rotary_angles(
    positions_BT: Array, *, size: int, theta: float, scaling: Llama3Scaling | None = None
) -> tuple[Array, Array]:
    """Cosines and sines [B, T, 1, size / 2], float32, for `size` features (RoFormer, arXiv 2104.09864, eq. 34)."""
    exponents_R = np.arange(0, size, 2, dtype=np.float32) / np.float32(max(size, 1))
    frequencies_R = (1.0 / np.float32(theta) ** exponents_R).astype(np.float32)
    if scaling is not None:
        frequencies_R = scaling(frequencies_R)
    angles_BT1R = positions_BT.astype(jnp.float32)[:, :, None, None] * frequencies_R[None, None, None, :]
    return jnp.cos(angles_BT1R), jnp.sin(angles_BT1R)


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
