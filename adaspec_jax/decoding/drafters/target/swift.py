"""SWIFT: the target drafts for itself without a set of sublayers, which is searched for while it serves."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.conditional import changed_if
from adaspec_jax.decoding.drafters.target.skipping import Thinned, guess_by
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.stopping import ConfidentEnough
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal

# How many candidates stand at a depth, by whether the draft gives its likeliest more than .95, .8, .5, or less.
_GREEDY, _SAMPLED = (3, 5, 8, 10), (1, 3, 5, 10)


class _Search(NamedTuple):
    """One search of the whole batch, the same in every row: one that has just begun takes over what others found."""

    prompt_B: Array  # tokens of the prompt
    keep_BY: Array  # bool [B, 2L]: the sublayers that run
    score_B: Array  # what that set scored
    tries_B: Array
    idle_B: Array  # tries since the score last rose


class Best(NamedTuple):
    """The best set found so far, and how the search for it stands."""

    keep_Y: Array  # bool [2L]: the sublayers that run
    score: Array
    tries: Array
    idle: Array


@pytree("skipped", "length", "siblings", "window", "share")
class SwiftDrafter:
    """A chain by the target without a set of sublayers, other likely tokens beside it, and a search for the set.

    Xia et al. 2025 (arXiv 2410.06916), numbers as in their run script. In every round after `window` + 1 tokens another
    set is tried: `share` of the sublayers, drawn at random, first and last layer kept. Its score is the share of the
    first `window` new tokens that the thinned model gives where it reads the text itself; the better set stays, until a
    score is above `enough`, `patience` tries brought nothing, or `most` were made. With a `memory` the search goes on
    from request to request, as theirs does; without one each begins anew. The layers are gated as the program runs, so
    that no set is compiled for. A chain ends after a token that is given less than `threshold`; at each depth
    stand up to `siblings` candidates, of which the likeliest alone goes on.

    Differences: rows of a batch run together, so they share a set, scored over all rows that are long enough; there is
    no Bayesian proposal (theirs is every 25th try, by a switch that is off by default); at a temperature the guesses
    are the likeliest tokens still and are judged as point masses, where they draw them.
    """

    model: Model
    skipped: tuple[int, ...]  # the set to begin with
    length: int = 25
    siblings: int = 10
    window: int = 50
    share: float = 0.45
    threshold: float = 0.8
    enough: float = 0.93
    patience: int = 300
    most: int = 1000
    memory: Best | None = None

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        if min(self.length, self.siblings, self.window) < 1 or not 0 < self.share < 1:
            numbers = f"{self.length}, {self.siblings}, {self.window} and {self.share}"
            raise ValueError(f"length, siblings and window are at least 1, share is between 0 and 1: not {numbers}")

    @property
    def num_nodes(self) -> int:
        return self.length * self.siblings

    @property
    def depth(self) -> int:
        return self.length

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted({-(-self.length // part) * self.siblings for part in (6, 3)} - {self.num_nodes}))

    def init(self, prompt: Context, slots: int) -> _Search:
        best, batch = self.blank() if self.memory is None else self.memory, len(prompt.lengths_B)
        return _Search(prompt.lengths_B, *(jnp.broadcast_to(x[None], (batch, *x.shape)) for x in best))

    def blank(self) -> Best:
        keep_Y = ~np.isin(np.arange(2 * self.model.config.num_layers), self.skipped)
        return Best(jnp.asarray(keep_Y), jnp.float32(0), jnp.int32(0), jnp.int32(0))

    def remember(self, state: _Search, context: Context, begun_B: Array) -> Best:
        return _furthest(state)

    def propose(self, key, state: _Search, context: Context) -> tuple[Proposal, _Search]:
        state, cache = self._searched(key, state, context)
        thinned = Thinned(self.model, keep=state.keep_BY[0])
        stop = ConfidentEnough(self.threshold, limit=self.length, step=0.0)  # a threshold that stays where it is
        known = {name: getattr(context, name) for name in ("tokens_BS", "lengths_B", "accepted_B", "judged_B")}
        greedily = dataclasses.replace(context.sampling, temperature=0.0)
        likeliest = Context(**known, target_cache=cache, sampling=greedily, opinion=True)
        knobs = {"length": self.length, "stop": stop, "widths": (self.length,)}
        chain, _ = guess_by(thinned, key, stop.init(context), likeliest, **knobs)
        return self._with_siblings(chain, context), state

    def _with_siblings(self, chain: Proposal, context: Context) -> Proposal:
        batch, counts = len(context.lengths_B), _GREEDY if context.sampling.greedy else _SAMPLED

        def beside(depth, tree):
            tokens_BNC, valid_BNC = tree
            logits_BV = jax.lax.dynamic_index_in_dim(chain.opinion_BNV, depth, axis=1, keepdims=False)
            width = min(self.siblings, logits_BV.shape[1])
            likely_BC = jax.lax.top_k(logits_BV, width)[1].astype(jnp.int32)
            likely_BC = jnp.pad(likely_BC, ((0, 0), (0, self.siblings - width)))
            best_B = jnp.max(jax.nn.softmax(logits_BV), axis=1)
            surer_B3 = best_B[:, None] > jnp.array([[0.95, 0.8, 0.5]])
            count_B = jnp.array(counts)[3 - jnp.sum(surer_B3, axis=1)]
            there_BC = jnp.arange(self.siblings)[None] < jnp.minimum(count_B, width)[:, None]
            there_BC &= jax.lax.dynamic_index_in_dim(chain.valid_BN, depth, axis=1)
            return tokens_BNC.at[:, depth].set(likely_BC), valid_BNC.at[:, depth].set(there_BC)

        shape = (batch, self.length, self.siblings)
        empty = (jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))
        tokens_BNC, valid_BNC = jax.lax.fori_loop(0, chain.width, beside, empty)
        return Proposal(
            tokens_BNC.reshape(batch, -1),
            np.repeat(np.arange(-1, self.length - 1) * self.siblings, self.siblings).clip(-1),
            valid_BN=valid_BNC.reshape(batch, -1),
            width=chain.width * self.siblings,
            target_cache=chain.target_cache,
        )

    def _searched(self, key, state: _Search, context: Context) -> tuple[_Search, Any]:
        """The search one try further, where it is on and a row has tokens enough; the cache, written past its end."""
        keep_Y, score, tries, idle = _furthest(state)
        new_B, base_B = context.lengths_B - state.prompt_B, context.lengths_B - 1
        long_B = (new_B > self.window + 1) & (base_B + self.window <= context.tokens_BS.shape[1])
        going = (score <= self.enough) & (idle <= self.patience) & (tries <= self.most) & jnp.any(long_B)
        other_Y = self._drawn(jax.random.fold_in(key, 1))

        def tried(at):
            scored, cache = self._scored(other_Y, state.prompt_B, long_B, at[1], context)
            better = scored > score
            found = Best(
                jnp.where(better, other_Y, keep_Y),
                jnp.maximum(scored, score),
                tries + 1,
                jnp.where(better, 0, idle + 1),
            )
            return found, cache

        found, cache = changed_if(going, tried, (Best(keep_Y, score, tries, idle), context.target_cache))
        spread = (jnp.broadcast_to(x[None], old.shape) for x, old in zip(found, state[1:], strict=True))
        return _Search(state.prompt_B, *spread), cache

    def _drawn(self, key) -> Array:
        """Which sublayers run, [2L]: all but `share` of those between the first layer and the last."""
        layers = self.model.config.num_layers
        between = 2 * (layers - 2)
        left_out = jax.random.permutation(key, between)[: int(between * self.share)]
        return jnp.ones((2 * layers,), bool).at[2 + left_out].set(False)

    def _scored(self, keep_Y, prompt_B, long_B, cache, context: Context) -> tuple[Array, Any]:
        """How much of the first new tokens this set foresees, reading the text; its keys go past the cache's end."""
        tokens_BW = tokens_from(context.tokens_BS, prompt_B, self.window + 1)
        steps_W, base_B = jnp.arange(self.window), context.lengths_B - 1
        slot_11S = jnp.arange(cache.slots)[None, None]
        own_BWS = (slot_11S >= base_B[:, None, None]) & (slot_11S <= (base_B[:, None] + steps_W[None])[..., None])
        hidden_BWD, cache = Thinned(self.model, keep=keep_Y).features(
            tokens_BW[:, :-1],
            cache.roll_back(base_B),
            positions_BT=prompt_B[:, None] + steps_W[None],
            mask_BTS=(slot_11S < prompt_B[:, None, None]) | own_BWS,
        )
        right_BW = most_likely(self.model.unembed(hidden_BWD)) == tokens_BW[:, 1:]
        right = jnp.sum(right_BW & long_B[:, None]) / jnp.maximum(jnp.sum(long_B) * self.window, 1)
        return right.astype(jnp.float32), cache.roll_back(base_B)


def _furthest(state: _Search) -> Best:
    """The search of the row that took part in most of it."""
    oldest = jnp.argmax(state.tries_B)
    return Best(*(x[oldest] for x in state[1:]))
