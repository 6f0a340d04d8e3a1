"""What drafters have in common that remember nothing from round to round."""

from __future__ import annotations

from jax import Array

from adaspec_jax.decoding.types import Asks, Context


class Stateless:
    """Of a drafter that sees the committed text alone: it has no state, and asks nothing of verifications."""

    asks = Asks(likeliest=0)

    def init(self, prompt: Context, slots: int) -> tuple:
        return ()

    def extend(self, state: tuple, prompt: Context, kept_B: Array, width: int) -> tuple:
        return ()
