"""Hydra: heads that each read the tokens guessed before theirs, beside the target's last hidden state.

Ankner et al. 2024 (arXiv 2402.05109). Head i reads the token after the hidden state's own and the i guesses that
follow; its first block has a matrix in place of the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaspec_jax.models.heads.parts.several import Several


@dataclass(frozen=True, kw_only=True)
class Hydra(Several):
    """Cross entropy of the text's own tokens, as it is trained; `hard=False` distils the target's law."""

    name = "hydra"
    paper = "arXiv 2402.05109"

    hard: bool = True

    def pieces(self, i: int) -> int:
        return i + 1


KIND = Hydra
