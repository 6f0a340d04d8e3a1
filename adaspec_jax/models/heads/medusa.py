"""Medusa: heads that each guess a token further on from the target's last hidden state alone.

Cai et al. 2024 (arXiv 2401.10774). The released code ties the blocks of a head where it has several; here each is its
own.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaspec_jax.models.heads.parts.several import Several


@dataclass(frozen=True, kw_only=True)
class Medusa(Several):
    """Cross entropy of the text's own tokens, as Medusa-1 is trained; `hard=False` distils the target's law."""

    name = "medusa"
    paper = "arXiv 2401.10774"

    hard: bool = True


KIND = Medusa
