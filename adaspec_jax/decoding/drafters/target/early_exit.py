"""Self-speculation by early exit: the target's first layers draft, and its others go on from where those stopped."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.present import with_token
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Entry, Model, Proposal


@pytree("exit_layer", "length")
class EarlyExitDrafter(InARow):
    """`length` guesses in a row by the target's first `exit_layer` layers, its final norm and its head.

    Elhoushi et al. 2024, LayerSkip's self-speculative decoding (arXiv 2404.16710). The cache is the target's own, and
    the exit states of the last committed token and of all guesses are what the verification begins with: it runs the
    layers from `exit_layer` on. For the last guess the first layers run once more, without guessing. Made for targets
    trained to exit early; with others it is as exact, and accepts little.
    """

    model: Model
    exit_layer: int
    length: int = 6

    asks = Asks(likeliest=0)
    enters = True

    def init(self, prompt: Context, slots: int) -> tuple:
        return ()

    def propose(self, key, state: tuple, context: Context) -> tuple[Proposal, tuple]:
        root_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)

        def guess(carry, key):
            token_B, cache, present_BV = carry
            ran = self.model.run(token_B[:, None], cache, last=self.exit_layer)
            logits_BV = self._exit(token_B[:, None], ran.hidden)[:, 0]
            logits_BV = context.sampling.processed(logits_BV, present_BV)
            token_B, probs_BV = context.pick(key, logits_BV, ran.cache.lengths_B)
            opinion_BV = logits_BV if context.opinion else None
            guessed = (token_B, probs_BV, opinion_BV, ran.hidden[:, 0])
            return (token_B, ran.cache, with_token(present_BV, token_B)), guessed

        cache = context.target_cache.roll_back(context.lengths_B - 1)
        keys = jax.random.split(key, self.length)
        begun = root_B1[:, 0], cache, context.present(self.model.config.vocab_size)
        (last_B, cache, _), made = jax.lax.scan(guess, begun, keys)
        tokens_BN, probs_BNV, opinion_BNV, hidden_BND = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), made)
        ran = self.model.run(last_B[:, None], cache, last=self.exit_layer)
        entry = Entry(self.exit_layer, jnp.concatenate([hidden_BND, ran.hidden], axis=1))
        return Proposal(
            tokens_BN, probs_BNV=probs_BNV, opinion_BNV=opinion_BNV, target_cache=ran.cache, entry=entry
        ), state

    def _exit(self, tokens_BT, hidden_BTD):
        """The logits of an exit: nothing of the layers that follow, but the norm after them."""
        normed = self.model.run(tokens_BT, first=self.model.config.num_layers, hidden_BTD=hidden_BTD).hidden
        return self.model.unembed(normed)
