"""PaSS: the target guesses for itself at trained look-ahead embeddings; all else is frozen.

Monea et al. 2023 (arXiv 2311.13581; no released code was found): a pass reads the last committed token and `slots`
look-ahead embeddings, the next verifies what was guessed there. Four slots are said of it [note]; that embeddings begin
as the mean of the tokens', and that they learn the target's own laws along given text, at several places of a row drawn
anew at every step, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaspec_jax.models.heads.parts.look_ahead import LookAhead


@dataclass(frozen=True, kw_only=True)
class Pass(LookAhead):
    """The divergence from the target's law at every slot; with `hard` the cross entropy of the text's own tokens."""

    name = "pass"
    paper = "arXiv 2311.13581"

    hard: bool = False


KIND = Pass
