"""An independent autoregressive draft model that guesses a chain (vanilla speculative decoding)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.types import Context, Model, Proposal, _pytree


@_pytree("length")
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


def read_prompt(model: Model, prompt: Context, slots: int):
    """The model's cache after a right-padded prompt."""
    _, cache = model(prompt.tokens_BS, model.init_cache(prompt.tokens_BS.shape[0], slots))
    return cache.roll_back(prompt.lengths_B)


def reread(model: Model, cache, context: Context, *, window: int):
    """Logits [B, V] after the last committed token, and the cache rolled back to exactly the committed tokens.

    The last `window` committed tokens are read (again); the cache must be right for all tokens before them.
    """
    start_B = jnp.maximum(context.lengths_B - window, 0)
    index_BW = jnp.minimum(start_B[:, None] + jnp.arange(window)[None], context.tokens_BS.shape[1] - 1)
    tokens_BW = jnp.take_along_axis(context.tokens_BS, index_BW, axis=1)
    hidden_BWD, cache = model.features(tokens_BW, cache.roll_back(start_B))
    last_B11 = (context.lengths_B - 1 - start_B)[:, None, None]
    last_BD = jnp.take_along_axis(hidden_BWD, last_B11, axis=1)[:, 0]  # one row is all the output matrix has to see
    return model.unembed(last_BD), cache.roll_back(context.lengths_B)
