"""A drafter made of a drafter, a model and a rule: speculation inside a round of speculation."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.drafters.models.reread import caught_up, read_on, read_prompt
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.prefill import tokens_from, untaught
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.rounds import Rounds
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Accept, Asks, Context, Drafter, Model, Proposal, WholeDrafter, asks_of


class _Between(NamedTuple):
    """What is kept from one proposal to the next."""

    cache: Any  # the middle model's
    read_BS: Array  # the text that it holds
    draft_state: Any
    taught: dict[str, Any]  # what the middle model's last verification said, see `untaught`


@pytree("length", "accept")
class Cascade(InARow):
    """`length` guesses that `drafter` and the middle `model` decide between them, in rounds under `accept`.

    The vertical cascade of CS Drafting (arXiv 2312.11462), PyramidSD's first stage (2510.12966). Rounds go on in each
    row until it has its guesses; what the last of them decides beyond those is dropped, and read again. The drafter may
    be a cascade itself, so that there may be any number of models.

    After a lossless inner rule the guesses follow the middle model's law, and state it. A lossy one leaves them no law:
    they are point masses. An outer rule that compares laws is told the middle model's. Where noise is shared the inner
    rounds write what the middle model would alone, by whatever rule.

    Inside, the middle model is the target: the drafter learns from its last verification, though the outer target may
    have changed the text since, and may guess in its cache. Ends of text and the outer budget are not known here: what
    lies beyond is never judged.

    Raises:
      ValueError: a length below 1; a drafter that asks for the middle model's hidden states, which are not kept.
    """

    drafter: Drafter
    model: Model
    length: int = 5
    accept: Accept = rejection_sample

    asks = Asks(likeliest=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if layers := asks_of(self.drafter).layers:
            raise ValueError(
                f"{type(self.drafter).__name__} asks for the states after layers {layers} of the model that verifies "
                "its guesses, and a cascade keeps none from one proposal to the next"
            )

    def init(self, prompt: Context, slots: int) -> _Between:
        slots += self.drafter.num_nodes  # the last round inside may guess so far beyond its last token
        cache = read_prompt(self.model, prompt, slots)
        inside = self._inside(prompt, cache)
        return self._begun(inside, cache, self.drafter.init(inside, slots), slots)

    def extend(self, state: _Between, prompt: Context, kept_B: Array, width: int) -> _Between:
        slots = state.read_BS.shape[1]
        cache = read_on(self.model, state.cache, prompt, kept_B, width, window=prompt.behind)
        inside = self._inside(prompt, cache)
        if hasattr(self.drafter, "extend"):
            draft_state = cast(WholeDrafter, self.drafter).extend(state.draft_state, inside, kept_B, width)
        else:
            draft_state = self.drafter.init(inside, slots)
        return self._begun(inside, cache, draft_state, slots)

    def _begun(self, inside: Context, cache: Any, draft_state: Any, slots: int) -> _Between:
        taught = untaught(self.drafter, len(inside.lengths_B))
        return _Between(cache, _widened(inside.tokens_BS, slots), draft_state, taught)

    def propose(self, key: Array, state: _Between, context: Context) -> tuple[Proposal, _Between]:
        sampling, slots = context.sampling, state.read_BS.shape[1]
        cache = caught_up(self.model, state.cache, context, state.read_BS)
        inside = dataclasses.replace(self._inside(context, cache), tokens_BS=_widened(context.tokens_BS, slots))
        inside = dataclasses.replace(inside, **state.taught)

        accept, never_E = self._rule(sampling), jnp.full((1,), -1)
        rounds = Rounds(self.model, self.drafter, self.length, never_E, slots, sampling, accept)
        states_law = getattr(accept, "lossless", False) and not sampling.settled
        told = self.length if states_law or context.opinion else 0
        loop = rounds.to_the_end(rounds.begin(key, inside, state.draft_state, logits=told))

        after, logits_BNV = loop.context, loop.logits_BLV
        proposal = Proposal(
            tokens_from(after.tokens_BS, context.lengths_B, self.length),
            probs_BNV=sampling.probs(jnp.asarray(logits_BNV)) if states_law else None,
            opinion_BNV=logits_BNV if context.opinion else None,
        )
        taught = {name: getattr(after, name) for name in state.taught}
        return proposal, _Between(after.target_cache, after.tokens_BS, loop.draft_state, taught)

    def _inside(self, context: Context, cache: Any) -> Context:
        """The same text as the drafter sees it, for which the middle model is the target."""
        return dataclasses.replace(
            context,
            target_cache=cache.roll_back(context.lengths_B - 1),
            hidden=(),
            behind=context.behind + 1,
            opinion=getattr(self._rule(context.sampling), "opinion", False),
        )

    def _rule(self, sampling: Sampling) -> Accept:
        """Shared noise settles what the middle model writes, and leaves a rule nothing to decide."""
        return rejection_sample if sampling.shares_noise else self.accept


def _widened(tokens_BS: Array, slots: int) -> Array:
    return jnp.pad(tokens_BS, ((0, 0), (0, slots - tokens_BS.shape[1])))
