"""Guesses of a draft model with another tokenizer, made in its own tokens and spelled in the target's."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.drafters.models.foreign import Foreign, Translating
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.types import Context, Proposal


@pytree("length")
class RespelledDrafter(Translating):
    """The draft's `length` likeliest tokens in a row, as text, of which the target's tokens are the guesses.

    String-level exact match (SLEM, Timor et al. 2025, arXiv 2502.05202): a guess stays where it is the target's own
    choice, which `match_sample` decides. The guesses are point masses, exact under every rule, whatever drew them.

    It differs from transformers' universal assisted generation in how the draft's text becomes target tokens. There it
    is retokenised with what precedes it, on the host; here every draft token is spelled alone, by a table, so that all
    of it is one compiled program. Where the target's tokenizer would join what two draft tokens say, the guess is
    another one than its own text would have, and is refused more often. What is beyond `length` target tokens is cut
    off, and so is all from a draft token on that says nothing in the target's. That the draft takes its likeliest token
    at any temperature is ours.
    """

    foreign: Foreign
    length: int = 5

    def propose(self, key, cache, context: Context):
        foreign = self.foreign
        # What was accepted is read as the target's tokens spell it, which need not be how the draft said it.
        width = (context.behind - 1) * foreign.spelling.longest + self.length
        read, ready_B = foreign.reread(cache, context, width=width, ahead=self.length - 1)

        def extend(carry, _):
            token_B, cache = carry
            logits_B1W, cache = foreign.model(token_B[:, None], cache)
            token_B = most_likely(logits_B1W[:, 0])
            return (token_B, cache), token_B

        first_B = most_likely(read.logits_BV)
        (_, cache), rest_LB = jax.lax.scan(extend, (first_B, read.cache), jnp.arange(self.length - 1))
        said_BL = jnp.concatenate([first_B[None], rest_LB]).T
        ends_BL = foreign.meaning.ends(said_BL, jnp.full_like(first_B, self.length))
        place_BN = jnp.broadcast_to(jnp.arange(self.length)[None], said_BL.shape)
        tokens_BN = foreign.meaning.at(said_BL, ends_BL, place_BN)
        proposal = Proposal(jnp.maximum(tokens_BN, 0), valid_BN=(tokens_BN >= 0) & ready_B[:, None])
        return proposal, cache.roll_back(read.cache.lengths_B)
