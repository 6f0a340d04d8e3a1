"""Draft on the Fly: the target drafts for itself without the attentions that change its hidden states least."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.drafters.target.skipping import Thinned, guess_by
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.stopping import ConfidentEnough
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


class _Measured(NamedTuple):
    """What a row says about each of the C attentions that may be left out."""

    similar_BC: Array  # the mean cosine by which sets are chosen
    sum_BC: Array  # of the cosines at the tokens verified since
    count_B: Array  # of these tokens
    length_B: Array  # committed tokens when a round was last proposed
    stop: Any


@pytree("first", "last", "length", "widths", "most", "every")
class SimilarityDrafter(InARow):
    """At most `length` guesses in a row by the target without attentions that leave its hidden states as they are.

    Metel et al. 2024, "Draft on the Fly" (arXiv 2410.01028): no search and nothing trained; how much an attention
    matters is told by the cosine of what enters it and that with what it adds, and the set changes with the context.
    Their thresholds and their further rules are not known here. Ours: the mean cosine over the prompt's tokens, then
    over every `every` tokens or more that were verified since; attentions above `similarity` are left out, but for the
    `first` layers and the `last`, and of all layers at most the share `most`, the most similar; chains end by
    Draft & Verify's threshold. Hidden states are those of prefill and verification, and layers are gated as the
    program runs, so that measuring costs next to nothing and no set is compiled for. Rows of a batch run together and
    share a set, chosen by the mean over rows.
    """

    model: Model
    first: int = 4
    last: int = 2
    length: int = 8
    stop: ConfidentEnough = ConfidentEnough()
    widths: tuple[int, ...] = ()
    similarity: float = 0.98
    most: float = 0.6
    every: int = 64

    def __post_init__(self) -> None:
        if min(self.first, self.last, self.length, self.every) < 1 or not 0 <= self.most <= 1:
            numbers = f"{self.first}, {self.last}, {self.length}, {self.every} and {self.most}"
            raise ValueError(f"first, last, length and every are at least 1, most is between 0 and 1: not {numbers}")
        if getattr(self.stop, "limit", self.length) != self.length:
            object.__setattr__(self, "stop", dataclasses.replace(self.stop, limit=self.length))

    @property
    def candidates(self) -> range:
        """The layers whose attention may be left out; ValueError where there are none."""
        layers = self.model.config.num_layers
        if layers <= self.first + self.last:
            raise ValueError(f"of {layers} layers the first {self.first} and the last {self.last} stay: none is left")
        return range(self.first, layers - self.last)

    @property
    def asks(self) -> Asks:
        return Asks(tuple(tap for layer in self.candidates for tap in (layer - 1, layer + 0.5)), likeliest=0)

    def init(self, prompt: Context, slots: int) -> _Measured:
        columns_1S = jnp.arange(prompt.tokens_BS.shape[1])[None]
        sum_BC = self._cosines(prompt, columns_1S < prompt.lengths_B[:, None])
        nothing_B = jnp.zeros_like(prompt.lengths_B)
        similar_BC = sum_BC / prompt.lengths_B[:, None]
        return _Measured(similar_BC, 0 * sum_BC, nothing_B, prompt.lengths_B, self.stop.init(prompt))

    def propose(self, key, state: _Measured, context: Context) -> tuple[Proposal, _Measured]:
        state = self._measured(state, context)
        thinned = Thinned(self.model, keep=self._kept(jnp.mean(state.similar_BC, axis=0)))
        knobs = {"length": self.length, "stop": self.stop, "widths": self.widths}
        proposal, stop = guess_by(thinned, key, state.stop, context, **knobs)
        return proposal, state._replace(stop=stop)

    def _measured(self, state: _Measured, context: Context) -> _Measured:
        """With the tokens that the last round verified: the root, and the guesses that were committed."""
        new_B = context.lengths_B - state.length_B
        nodes_1M = jnp.arange(self.length + 1)[None]
        sum_BC = state.sum_BC + self._cosines(context, nodes_1M < new_B[:, None])
        count_B = state.count_B + new_B
        full_B1 = (count_B >= self.every)[:, None]
        return _Measured(
            jnp.where(full_B1, sum_BC / jnp.maximum(count_B, 1)[:, None], state.similar_BC),
            jnp.where(full_B1, 0, sum_BC),
            jnp.where(full_B1[:, 0], 0, count_B),
            context.lengths_B,
            state.stop,
        )

    def _cosines(self, context: Context, counts_BM: Array) -> Array:
        """[B, C]: each candidate's cosine, summed over the tokens that count."""
        pairs = zip(context.hidden[::2], context.hidden[1::2], strict=True)
        found = [jnp.sum(jnp.where(counts_BM, _cosine(before, after), 0), axis=1) for before, after in pairs]
        return jnp.stack(found, axis=1)

    def _kept(self, similar_C: Array) -> Array:
        """Which sublayers run, [2L]."""
        layers = self.model.config.num_layers
        rank_C = jnp.argsort(jnp.argsort(-similar_C, stable=True))
        gone_C = (similar_C > self.similarity) & (rank_C < int(self.most * layers))
        return jnp.ones((2 * layers,), bool).at[2 * jnp.asarray(self.candidates, jnp.int32)].set(~gone_C)


def _cosine(a_BMD: Array, b_BMD: Array) -> Array:
    a_BMD, b_BMD = (x.astype(jnp.float32) for x in (a_BMD, b_BMD))
    product_BM = jnp.sum(a_BMD * b_BMD, axis=-1)
    sizes_BM = jnp.sum(a_BMD**2, axis=-1) * jnp.sum(b_BMD**2, axis=-1)
    return product_BM / jnp.sqrt(jnp.maximum(sizes_BM, 1e-30))
