"""An independent autoregressive draft model that guesses a chain (vanilla speculative decoding)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.conditional import changed_if
from adaspec_jax.decoding.drafters.models.reread import Read, catch_up, read_on, read_prompt, reread
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.present import with_token
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.stopping import Stop, WholeStop
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


@pytree("length", "widths")
class ChainDrafter(InARow):
    """`length` guesses in a row, drawn from the draft model under the target's sampling settings.

    Leviathan et al. 2023 (arXiv 2211.17192), Chen et al. 2023 (2302.01318). With a `stop`, at most so many: the round
    ends when no row goes on, and of `widths`, numbers of guesses, the smallest that holds them all is verified. With a
    stop that `rests`, the draft reads nothing in rounds in which no row may guess, and catches up before it guesses.
    """

    model: Model
    length: int = 5
    stop: Stop | None = None
    widths: tuple[int, ...] = ()

    asks = Asks(likeliest=0)

    @property
    def _rule(self) -> WholeStop:
        assert self.stop is not None, "a chain that is as long as it can be asks nobody"
        return cast(WholeStop, self.stop)

    def init(self, prompt: Context, slots: int) -> Any:
        return self._begun(read_prompt(self.model, prompt, slots), prompt)

    def extend(self, state: Any, prompt: Context, kept_B: Array, width: int) -> Any:
        cache = state if self.stop is None else state[0]
        if self.stop is not None:
            cache = catch_up(self.model, cache, prompt.tokens_BS, kept_B - prompt.behind + 1, stride=self.length)
        return self._begun(read_on(self.model, cache, prompt, kept_B, width, window=prompt.behind), prompt)

    def _begun(self, cache: Any, prompt: Context) -> Any:
        if self.stop is None:
            return cache
        return cache, self._rule.init(prompt) if hasattr(self.stop, "init") else ()

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        return self._all(key, state, context) if self.stop is None else self._until_stopped(key, state, context)

    def _all(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        # After a full acceptance the draft has never seen its own last guess.
        read = reread(self.model, cache, context, window=context.behind)
        return guessed_chain(self.model, read, key, context, length=self.length)

    def _until_stopped(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        """The same guesses, as far as `stop` lets each row go."""
        limit_B, stop_state = self._rule.begin(state[1], context)
        begun = state[0], stop_state
        return self._up_to(limit_B, key, begun, context, rests=getattr(self.stop, "rests", False))

    def propose_among(self, key: Array, state: Any, context: Context, rows_B: Array) -> tuple[Proposal, Any]:
        """`propose` of a chain with a stop in which these rows alone guess; where there are none nothing is read."""
        limit_B, stop_state = self._rule.begin(state[1], context)
        return self._up_to(jnp.where(rows_B, limit_B, 0), key, (state[0], stop_state), context, rests=True)

    def _up_to(self, limit_B: Array, key: Array, state: Any, context: Context, *, rests: bool) -> tuple[Proposal, Any]:
        """At most `limit_B` guesses; with `rests`, nothing is read for none, and what was not read comes first."""
        if not rests:
            return self._guesses(limit_B, key, state, context)
        cache, stop_state = state
        until_B = context.lengths_B - context.behind

        def guessed(made: Any) -> Any:
            cache = catch_up(self.model, made[1][0], context.tokens_BS, until_B, stride=self.length)
            proposal, (cache, stop_state) = self._guesses(limit_B, key, (cache, made[1][1]), context)
            # A row that may not guess holds no token that others guess for it.
            cache = cache.roll_back(jnp.where(limit_B > 0, cache.lengths_B, context.lengths_B))
            return proposal, (cache, stop_state)

        known_B = jnp.minimum(cache.lengths_B, jnp.maximum(until_B, 0))  # what lies beyond may have been refused
        resting = cache.roll_back(known_B), stop_state
        shapes = jax.eval_shape(lambda state: guessed((None, state))[0], resting)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return changed_if(jnp.any(limit_B > 0), guessed, (nothing, resting))

    def _guesses(self, limit_B: Array, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        keys = jax.random.split(key, self.length)
        logits_BV, hidden_BD, cache = reread(self.model, state[0], context, window=context.behind)
        begun = _Guessing.empty(self.length, logits_BV, context)._replace(cache=cache, stop_state=state[1])
        first = self._guess(begun, keys[0], logits_BV, hidden_BD, limit_B, context)

        def extend(at: _Guessing) -> _Guessing:
            last_B1 = jax.lax.dynamic_slice_in_dim(at.proposal.tokens_BN, at.n - 1, 1, axis=1)
            hidden_B1D, cache = self.model.features(last_B1, at.cache)
            logits_BV = self.model.unembed(hidden_B1D[:, 0])
            return self._guess(at._replace(cache=cache), keys[at.n], logits_BV, hidden_B1D[:, 0], limit_B, context)

        made = jax.lax.while_loop(lambda at: jnp.any(at.going_B) & (at.n < self.length), extend, first)
        width = jnp.max(jnp.sum(jnp.asarray(made.proposal.valid_BN), axis=1)) if self.widths else None
        return dataclasses.replace(made.proposal, width=width), (made.cache, made.stop_state)

    def _guess(
        self, at: _Guessing, key: Array, logits_BV: Array, hidden_BD: Array, limit_B: Array, context: Context
    ) -> _Guessing:
        sampling, n, proposal = context.sampling, at.n, at.proposal
        logits_BV = sampling.processed(logits_BV, at.present_BV)
        token_B, probs_BV = context.pick(key, logits_BV, at.cache.lengths_B)
        law_BV = probs_BV
        if law_BV is None:
            law_BV = jax.nn.softmax(logits_BV) if sampling.greedy else sampling.probs(logits_BV)
        goes_B, stop_state = self._rule.go_on(at.stop_state, n, law_BV, hidden_BD)
        going_B = at.going_B & goes_B & (n < limit_B)

        def put(buffer: Any, values: Any) -> Any:
            return None if buffer is None else jax.lax.dynamic_update_index_in_dim(buffer, values, n, axis=1)

        proposal = Proposal(
            put(proposal.tokens_BN, token_B),
            valid_BN=put(proposal.valid_BN, going_B),
            probs_BNV=put(proposal.probs_BNV, probs_BV),
            opinion_BNV=put(proposal.opinion_BNV, logits_BV),
        )
        if hasattr(self.stop, "ended"):
            going_B &= ~self._rule.ended(stop_state)
        return _Guessing(n + 1, going_B, proposal, at.cache, stop_state, with_token(at.present_BV, token_B))


Reader = Callable[[Array, Any], tuple[Array, Any]]  # (tokens_BT, its cache) -> (logits_BTV, the cache)


def guessed_chain(model: Reader, read: Read, key: Array, context: Context, *, length: int) -> tuple[Proposal, Any]:
    """`length` guesses one after the other, from what a model made of the last committed token; and its cache.

    The cache's lengths say the guesses' places in the rows.
    """
    keys = jax.random.split(key, length)

    def guess(key: Array, logits_BV: Array, cache: Any, present_BV: Array | None) -> tuple[Array, Any, Any]:
        logits_BV = context.sampling.processed(logits_BV, present_BV)
        token_B, probs_BV = context.pick(key, logits_BV, cache.lengths_B)
        return token_B, probs_BV, logits_BV if context.opinion else None

    def extend(carry: Any, key: Array) -> tuple[Any, Any]:
        token_B, cache, present_BV = carry
        logits_B1V, cache = model(token_B[:, None], cache)
        present_BV = with_token(present_BV, token_B)
        guessed = guess(key, logits_B1V[:, 0], cache, present_BV)
        return (guessed[0], cache, present_BV), guessed

    present_BV = context.present(read.logits_BV.shape[-1])
    first = guess(keys[0], read.logits_BV, read.cache, present_BV)
    (_, cache, _), rest = jax.lax.scan(extend, (first[0], read.cache, present_BV), keys[1:])
    whole = jax.tree.map(lambda a, others: jnp.moveaxis(jnp.concatenate([a[None], others]), 0, 1), first, rest)
    return Proposal(whole[0], probs_BNV=whole[1], opinion_BNV=whole[2]), cache


class _Guessing(NamedTuple):
    n: Array  # guesses that were asked for
    going_B: Array
    proposal: Proposal
    cache: Any
    stop_state: Any
    present_BV: Array | None  # the tokens of the text and of the guesses, where a penalty asks for them

    @classmethod
    def empty(cls, length: int, logits_BV: Array, context: Context) -> _Guessing:
        batch, vocab_size = logits_BV.shape
        laws_BNV = jnp.zeros((batch, length, vocab_size), jnp.float32)
        proposal = Proposal(
            jnp.zeros((batch, length), jnp.int32),
            valid_BN=jnp.zeros((batch, length), bool),
            probs_BNV=None if context.sampling.settled else laws_BNV,
            opinion_BNV=laws_BNV if context.opinion else None,
        )
        return cls(jnp.int32(0), jnp.ones((batch,), bool), proposal, None, None, context.present(vocab_size))
