"""A chain of guesses from a draft model with another tokenizer, in the tokens that both vocabularies have."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.chain import guessed_chain
from adaspec_jax.decoding.drafters.models.foreign import Foreign, Translating
from adaspec_jax.decoding.drafters.models.reread import Read
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Context, Model

_RULED_OUT = -1e9  # finite: where processors leave no token of the draft's there is still a law, of no use and as exact


@pytree("length")
class IntersectionDrafter(Translating):
    """`length` guesses in a row, drawn from the draft's law over the tokens whose strings both vocabularies have.

    Token-level intersection (TLI, Timor et al. 2025, arXiv 2502.05202): the draft's other tokens are left out, its law
    is renormalised, and ids are the target's from there on. Processors, temperature, filters and shared noise apply in
    those. The guesses state the law they were drawn from, so that every rule takes them as it takes a chain's.

    transformers' `UniversalSpeculativeDecodingGenerator` retokenises the prompt as a whole, and what follows token by
    token; here all is spelled token by token (`Foreign`).
    """

    foreign: Foreign
    length: int = 5

    def propose(self, key, cache, context: Context):
        # Guesses are single tokens of the draft's, which it has read but for the last; others are spelled anew.
        width = (context.behind - 1) * self.foreign.spelling.longest + 1
        read, ready_B = self.foreign.reread(cache, context, width=width, ahead=self.length - 1)
        common = _Common(self.foreign.model, self.foreign.draft_of_V)
        begun = Read(common.of_target(read.logits_BV), None, _At(read.cache, context.lengths_B))
        proposal, at = guessed_chain(common.__call__, begun, key, context, length=self.length)
        cache = at.cache.roll_back(jnp.where(ready_B, at.cache.lengths_B, read.cache.lengths_B))
        valid_BN = jnp.broadcast_to(ready_B[:, None], proposal.tokens_BN.shape)
        return dataclasses.replace(proposal, valid_BN=valid_BN), cache


class _At(NamedTuple):
    """The draft's cache, and how long the row is in target tokens."""

    cache: Any
    lengths_B: Array


class _Common(NamedTuple):
    """The draft model as one of the target's vocabulary, of which it knows the common tokens."""

    model: Model
    draft_of_V: Array

    def __call__(self, tokens_BT: Array, at: Any) -> tuple[Array, _At]:
        logits_BTW, cache = self.model(jnp.maximum(self.draft_of_V[tokens_BT], 0), at.cache)
        return self.of_target(logits_BTW), _At(cache, at.lengths_B + tokens_BT.shape[1])

    def of_target(self, logits_W: Array) -> Array:
        """[..., V] of [..., W]."""
        common_V = jnp.take(logits_W, jnp.maximum(self.draft_of_V, 0), axis=-1).astype(jnp.float32)
        return jnp.where(jnp.broadcast_to(self.draft_of_V >= 0, common_V.shape), common_V, _RULED_OUT)
