"""Guesses copied from text where the text has them, and a draft model's guesses for all other rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Drafter, Proposal, WholeDrafter, asks_of, is_chain


class _Sources(NamedTuple):
    copies: Any
    chain: Any
    copied_B: Array  # whether the last round's guesses were copied


@pytree()
class CopyFirst:
    """What `copies` finds in the text, in rows in which it finds anything; in all others what the `chain` guesses.

    The third controller of "drop-in on-the-fly adaptation" (Liu, Park and Shen, ACL 2025; from notes on the paper: its
    second, with a cache of prompt and generation). The chain's stop learns from the chain's own rounds alone, and where
    every row copies the draft model reads nothing. Copied guesses are point masses.
    """

    copies: Drafter  # of chains, without a law
    chain: ChainDrafter  # with a stop

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        if self.chain.stop is None:
            raise ValueError("the chain beside copied guesses needs a stop")
        name, asks = type(self.copies).__name__, asks_of(self.copies)
        if asks.layers or asks.likeliest or not is_chain(self.copies) or not hasattr(self.copies, "extend"):
            raise ValueError(f"{name} does not copy chains from the text alone, as guesses before a model's must be")

    @property
    def num_nodes(self) -> int:
        return max(self.copies.num_nodes, self.chain.num_nodes)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.chain.widths

    def init(self, prompt: Context, slots: int) -> _Sources:
        none_B = jnp.zeros(prompt.lengths_B.shape, bool)
        return _Sources(self.copies.init(prompt, slots), self.chain.init(prompt, slots), none_B)

    def extend(self, state: _Sources, prompt: Context, kept_B: Array, width: int) -> _Sources:
        copies = cast(WholeDrafter, self.copies).extend(state.copies, prompt, kept_B, width)
        chain = self.chain.extend(state.chain, prompt, kept_B, width)
        return _Sources(copies, chain, jnp.zeros_like(state.copied_B))

    def propose(self, key: Array, state: _Sources, context: Context) -> tuple[Proposal, _Sources]:
        copy_key, chain_key = jax.random.split(key)
        copied, copies = self.copies.propose(copy_key, state.copies, context)
        assert copied.valid_BN is not None, "copies say where they found any"
        found_B = copied.valid_BN[:, 0]
        accepted_B, judged_B = (jnp.where(state.copied_B, 0, x) for x in (context.accepted_B, context.judged_B))
        context = dataclasses.replace(context, accepted_B=accepted_B, judged_B=judged_B)
        guessed, chain = self.chain.propose_among(chain_key, state.chain, context, ~found_B)

        def chosen(copied_BN: Array, guessed_BN: Array) -> Array:
            return jnp.where(found_B[:, None], self._wide(copied_BN), self._wide(guessed_BN))

        tokens_BN = chosen(copied.tokens_BN, guessed.tokens_BN)
        assert guessed.valid_BN is not None, "a chain with a stop says how far it went"
        valid_BN = chosen(copied.valid_BN, guessed.valid_BN)

        def told(laws_BNV: Array | None, of_mass: Callable[[Array], Array] = jnp.asarray) -> Array | None:
            """The chain's own, and in rows that copy what a point mass is there."""
            if laws_BNV is None:
                return None
            mass_BNV = jax.nn.one_hot(tokens_BN, laws_BNV.shape[-1], dtype=laws_BNV.dtype)
            return jnp.where(found_B[:, None, None], of_mass(mass_BNV), self._wide(laws_BNV))

        proposal = Proposal(
            tokens_BN,
            valid_BN=valid_BN,
            probs_BNV=told(guessed.probs_BNV),
            opinion_BNV=told(guessed.opinion_BNV, jnp.log),
            width=jnp.max(jnp.sum(valid_BN, axis=1)) if self.widths else None,
        )
        return proposal, _Sources(copies, chain, found_B)

    def _wide(self, values_BN: Array) -> Array:
        missing = self.num_nodes - values_BN.shape[1]
        return jnp.pad(values_BN, ((0, 0), (0, missing), *((0, 0),) * (values_BN.ndim - 2)))
