"""A trained head on the target's first layers drafts, and the target's other layers go on from where those stopped."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.stopping import Stop
from adaspec_jax.decoding.types import Asks, Context, Entry, Proposal


class EarlyHead(Protocol):
    """A head on a target's first layers, with that target; `models.heads` has such values."""

    exit_layer: int  # how many layers those are

    def early(self, tokens_BT: Array, cache: Any) -> tuple[Array, Any]:
        """(hidden_BTD after them, the target's cache with these tokens in those layers)."""

    def read(self, hidden_BTD: Array, cache: Any) -> tuple[Array, Any]:
        """(made_BTD, the head's own cache T entries longer) of those hidden states."""

    def unembed(self, made: Array) -> Array:
        """Logits [..., V] of the next token."""

    def init_cache(self, batch_size: int, slots: int) -> Any: ...


@pytree()
class _Caches:
    """The target's and the head's, as one cache of a draft model; and what was at the exit in this round."""

    target: Any
    own: Any
    hidden_BMD: Array  # of the root and the guesses, as far as they were read
    count: Array  # so many of them

    @property
    def lengths_B(self) -> Array:
        return self.target.lengths_B

    def roll_back(self, lengths_B: Array) -> _Caches:
        target, own = self.target.roll_back(lengths_B), self.own.roll_back(lengths_B)
        return dataclasses.replace(self, target=target, own=own)


@pytree()
class _Draft:
    """The first layers and the head as a draft model, which reads one token at a time."""

    head: EarlyHead

    def features(self, tokens_B1: Array, caches: _Caches) -> tuple[Array, _Caches]:
        hidden_B1D, target = self.head.early(tokens_B1, caches.target)
        made_B1D, own = self.head.read(hidden_B1D, caches.own)
        hidden_BMD = jax.lax.dynamic_update_slice_in_dim(caches.hidden_BMD, hidden_B1D, caches.count, axis=1)
        return made_B1D, _Caches(target, own, hidden_BMD, caches.count + 1)

    def unembed(self, made: Array) -> Array:
        return self.head.unembed(made)

    def __call__(self, tokens_B1: Array, caches: _Caches) -> tuple[Array, _Caches]:
        made_B1D, caches = self.features(tokens_B1, caches)
        return self.unembed(made_B1D), caches


@pytree("length", "widths")
class AdapterDrafter(InARow):
    """At most `length` guesses in a row by a head on the target's first layers, as far as `stop` lets it go.

    Liu et al. 2024, Kangaroo (arXiv 2404.18911). The first layers run on every guess, in the target's own cache; the
    verification begins with what they made, and runs the others. For the last guess they run once more without
    guessing, and so does the head, whose cache then lacks nothing, however many guesses are accepted (their code reads
    the last guess together with the next round's first token, for which it has to be kept).
    """

    head: EarlyHead
    length: int = 6
    stop: Stop | None = None
    widths: tuple[int, ...] = ()

    enters = True

    @property
    def asks(self) -> Asks:
        return Asks(layers=(self.head.exit_layer - 1,), likeliest=0)

    def init(self, prompt: Context, slots: int) -> Any:
        (hidden_BTD,) = prompt.hidden
        _, own = self.head.read(hidden_BTD, self.head.init_cache(len(prompt.lengths_B), slots))
        stop: Any = self.stop
        return own.roll_back(prompt.lengths_B - 1), stop.init(prompt) if hasattr(stop, "init") else ()

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        own, stop_state = state
        draft = _Draft(self.head)
        # Of the shape of what the last verification had there: the root and every guess.
        caches: Any = _Caches(context.target_cache, own, jnp.zeros_like(context.hidden[0]), jnp.int32(0))
        chain = ChainDrafter(draft, self.length, self.stop, self.widths)
        # Neither cache lacks more than the last committed token.
        begun = caches if self.stop is None else (caches, stop_state)
        proposal, made = chain.propose(key, begun, dataclasses.replace(context, behind=1))
        caches, stop_state = (made, stop_state) if self.stop is None else made
        last_B1 = jax.lax.dynamic_slice_in_dim(proposal.tokens_BN, caches.count - 1, 1, axis=1)
        _, caches = draft.features(last_B1, caches)
        entry = Entry(self.head.exit_layer, caches.hidden_BMD)
        return dataclasses.replace(proposal, target_cache=caches.target, entry=entry), (caches.own, stop_state)
