"""How rotary frequencies are stretched for contexts longer than the ones a model was first trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
