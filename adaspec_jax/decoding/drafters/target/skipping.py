"""Self-speculation by skipped sublayers: the target drafts for itself, with a fixed part of it left out."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax import Array

from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.stopping import Stop
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


@pytree("skipped")
class Thinned:
    """The model without some of its sublayers, as a model of its own that reads and writes the model's cache.

    `skipped`, static: numbers of sublayers that are left out, attention of layer i at 2 i and its MLP at 2 i + 1; or
    `keep`, bool[2L] on the device, says of each whether it runs.
    """

    model: Model
    skipped: tuple[int, ...] = ()
    keep: Array | None = None

    def features(self, tokens_BT, cache=None, *, positions_BT=None, mask_BTS=None):
        keep = self.keep
        if keep is None:
            keep = tuple(n not in self.skipped for n in range(2 * self.model.config.num_layers))
        return self.model.run(tokens_BT, cache, positions_BT=positions_BT, mask_BTS=mask_BTS, keep=keep)[:2]

    def unembed(self, hidden_BTD):
        return self.model.unembed(hidden_BTD)

    def __call__(self, tokens_BT, cache=None, **where):
        hidden_BTD, cache = self.features(tokens_BT, cache, **where)
        return self.unembed(hidden_BTD), cache


def guess_by(
    model: Model, key, stop_state: Any, context: Context, *, length: int, stop: Stop | None, widths: tuple[int, ...]
) -> tuple[Proposal, Any]:
    """(a chain guessed in the target's own cache, which is handed back; the stop's state).

    `model` is a form of the target. The cache lacks the last committed token and no other; the verification writes over
    all that is written here.
    """
    chain = ChainDrafter(model, length, stop, widths)
    cache = context.target_cache
    state = cache if stop is None else (cache, stop_state)
    proposal, state = chain.propose(key, state, dataclasses.replace(context, behind=1))
    cache, stop_state = (state, stop_state) if stop is None else state
    return dataclasses.replace(proposal, target_cache=cache), stop_state


@pytree("skipped", "length", "widths")
class SkippingDrafter(InARow):
    """At most `length` guesses in a row by the target without its sublayers `skipped`, as far as `stop` lets it go.

    Zhang et al. 2024, "Draft & Verify" (arXiv 2309.08168). What is sampled has the thinned model's own law, by which it
    is judged (their code drafts the likeliest token and judges it by the whole law, which changes the output's).
    `keep` in place of `skipped` is decided as the program runs, so that many sets share one (see `Thinned`).
    """

    model: Model
    skipped: tuple[int, ...]
    length: int = 8
    stop: Stop | None = None
    widths: tuple[int, ...] = ()
    keep: Array | None = None

    asks = Asks(likeliest=0)

    def init(self, prompt: Context, slots: int):
        return self.stop.init(prompt) if hasattr(self.stop, "init") else ()

    def propose(self, key, state, context: Context) -> tuple[Proposal, Any]:
        knobs = {"length": self.length, "stop": self.stop, "widths": self.widths}
        return guess_by(Thinned(self.model, self.skipped, self.keep), key, state, context, **knobs)
