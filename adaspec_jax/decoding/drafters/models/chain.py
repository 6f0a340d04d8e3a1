"""An independent autoregressive draft model that guesses a chain (vanilla speculative decoding)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.drafters.models.reread import read_prompt, reread
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Model, Proposal


@pytree("length")
class ChainDrafter:
    """`length` guesses in a row, drawn from the draft model under the target's sampling settings.

    Leviathan et al. 2023 (arXiv 2211.17192), Chen et al. 2023 (2302.01318).
    """

    model: Model
    length: int = 5

    @property
    def num_nodes(self) -> int:
        return self.length

    def init(self, prompt: Context, slots: int):
        return read_prompt(self.model, prompt, slots)

    def propose(self, key, cache, context: Context):
        sampling = context.sampling
        keys = jax.random.split(key, self.length)
        # Two tokens: after a full acceptance the draft has never seen its own last guess.
        logits_BV, cache = reread(self.model, cache, context, window=2)

        def extend(carry, key):
            token_B, cache = carry
            logits_B1V, cache = self.model(token_B[:, None], cache)
            token_B, probs_BV = sampling.pick(key, logits_B1V[:, 0])
            return (token_B, cache), (token_B, probs_BV)

        first_B, first_BV = sampling.pick(keys[0], logits_BV)
        (_, cache), (rest_NB, rest_NBV) = jax.lax.scan(extend, (first_B, cache), keys[1:])
        tokens_BN = jnp.concatenate([first_B[None], rest_NB]).T
        probs_BNV = None if sampling.greedy else jnp.moveaxis(jnp.concatenate([first_BV[None], rest_NBV]), 0, 1)
        return Proposal(tokens_BN, probs_BNV=probs_BNV), cache
