"""Hydra++: deeper heads, which read the target's hidden states through a layer of their own, and are distilled.

Ankner et al. 2024 (arXiv 2402.05109, section 5): four heads of four blocks, a prefix layer over the sequence, the
target's law in place of the text's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaspec_jax.models.heads.hydra import Hydra


@dataclass(frozen=True, kw_only=True)
class HydraPlus(Hydra):
    """As the released code's best: the loss is the divergence from the target alone."""

    name = "hydra_plus"

    blocks: int = 4
    decay: float = 1.0
    hard: bool = False

    @property
    def prefixed(self) -> bool:
        return True


KIND = HydraPlus
