"""Several drafters one after the other along a chain: the first guesses by one, those after by the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.logprobs import written
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Drafter, Proposal, WholeDrafter, asks_of, is_chain


class _Run(NamedTuple):
    """What is kept from one proposal to the next."""

    states: tuple[Any, ...]
    begins_BX: Array  # in the last proposal: how many guesses stood before each drafter's, and how many there were


@pytree("counts", "widths")
class Relay:
    """A chain of `counts[0]` guesses by the first drafter, then `counts[1]` by the second, and so on.

    The horizontal cascade of CS Drafting (arXiv 2312.11462): early guesses count most, and the larger drafts make them.
    Where a drafter has less to say in some row, the next one takes over there, and the chain is shorter. Each guess has
    the law that its maker states; one without a law is a point mass, also where the other guesses have laws, and in the
    opinion that rules compare.

    Of `widths`, numbers of guesses, the smallest that holds every row's is verified.

    Raises:
      ValueError: drafters of trees, or that guess from the target's states or from what it says at their guesses; a
        count that a drafter does not reach.
    """

    drafters: tuple[Drafter, ...]
    counts: tuple[int, ...]
    widths: tuple[int, ...] = ()

    asks = Asks(likeliest=0)

    @classmethod
    def of(cls, *parts: tuple[Drafter, int], widths: tuple[int, ...] = ()) -> Relay:
        """`Relay.of((first, count), (second, count), ...)`."""
        drafters, counts = zip(*parts, strict=True)
        return cls(drafters, counts, widths)

    def __post_init__(self) -> None:
        for drafter, count in zip(self.drafters, self.counts, strict=True):
            name, asks = type(drafter).__name__, asks_of(drafter)
            if asks.layers or asks.likeliest or getattr(drafter, "enters", False):
                raise ValueError(
                    f"{name} guesses from what the target says at its guesses, and in a relay others stand"
                )
            if not is_chain(drafter):
                raise ValueError(_a_tree(drafter))
            if not 1 <= count <= drafter.num_nodes:
                raise ValueError(f"{name} guesses {drafter.num_nodes} tokens, and {count} are asked of it")

    @property
    def num_nodes(self) -> int:
        return sum(self.counts)

    def init(self, prompt: Context, slots: int) -> _Run:
        states = (drafter.init(self._behind(prompt, n), slots) for n, drafter in enumerate(self.drafters))
        return self._begun(prompt, states)

    @property
    def extend(self) -> Any:
        """As of every drafter; missing where one of these lacks it, so that whole prompts are read."""
        if not all(hasattr(drafter, "extend") for drafter in self.drafters):
            raise AttributeError("extend")
        return self._extended

    def _extended(self, state: _Run, prompt: Context, kept_B: Array, width: int) -> _Run:
        drafters = enumerate(zip(cast(tuple[WholeDrafter, ...], self.drafters), state.states, strict=True))
        return self._begun(
            prompt, (drafter.extend(each, self._behind(prompt, n), kept_B, width) for n, (drafter, each) in drafters)
        )

    def _begun(self, prompt: Context, states: Any) -> _Run:
        return _Run(tuple(states), jnp.zeros((len(prompt.lengths_B), len(self.drafters) + 1), jnp.int32))

    def propose(self, key: Array, state: _Run, context: Context) -> tuple[Proposal, _Run]:
        keys, begin_B = jax.random.split(key, len(self.counts)), jnp.zeros_like(context.lengths_B)
        seen, states, begins, parts = context, [], [begin_B], []
        for n, (drafter, count) in enumerate(zip(self.drafters, self.counts, strict=True)):
            made, after = drafter.propose(keys[n], state.states[n], self._seen_by(n, seen, context, state.begins_BX))
            self._check(n, made)
            valid_BN, place_1N = _valid(made, count), jnp.arange(count)[None]
            parts.append((made, jnp.where(valid_BN, begin_B[:, None] + place_1N, self.num_nodes)))
            states.append(after)
            at_BN = jnp.where(valid_BN, seen.lengths_B[:, None] + place_1N, seen.tokens_BS.shape[1])
            made_B = jnp.sum(valid_BN, axis=1, dtype=jnp.int32)
            begin_B += made_B
            begins.append(begin_B)
            seen = dataclasses.replace(
                seen,
                tokens_BS=written(seen.tokens_BS, made.tokens_BN[:, :count], at_BN),
                lengths_B=seen.lengths_B + made_B,
                target_cache=seen.target_cache if made.target_cache is None else made.target_cache,
            )
        return self._joined(parts, begin_B), _Run(tuple(states), jnp.stack(begins, axis=1))

    def _seen_by(self, n: int, seen: Context, context: Context, begins_BX: Array) -> Context:
        """The text with the guesses before those of drafter n, and what became of its own in the last round."""
        begin_B, end_B = begins_BX[:, n], begins_BX[:, n + 1]

        def of_its_own(count_B: Array) -> Array:
            return jnp.clip(count_B - begin_B, 0, end_B - begin_B)

        nodes = self.drafters[n].num_nodes
        return dataclasses.replace(
            self._behind(seen, n),
            accepted_B=of_its_own(context.accepted_B),
            judged_B=of_its_own(context.judged_B),
            path_BN=jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32), (len(begin_B), nodes)),
        )

    def _behind(self, context: Context, n: int) -> Context:
        """As drafter n sees a text: its cache lacks the others' guesses too, of the last round and of this one."""
        behind = context.behind + self.num_nodes - self.counts[n]
        return dataclasses.replace(context, behind=behind, likeliest_BMK=None, hidden=())

    def _check(self, n: int, made: Proposal) -> None:
        if made.parents_BN is not None:
            raise ValueError(_a_tree(self.drafters[n]))
        if n and made.target_cache is not None:
            name = type(self.drafters[n]).__name__
            raise ValueError(f"{name} guesses in the target's cache, which lacks the guesses before: put it first")

    def _joined(self, parts: list[tuple[Proposal, Array]], end_B: Array) -> Proposal:
        proposals = [made for made, _ in parts]
        tokens_BN = jnp.zeros((len(end_B), self.num_nodes), jnp.int32)
        for made, at_BN in parts:
            tokens_BN = written(tokens_BN, made.tokens_BN[:, : at_BN.shape[1]], at_BN)
        whole = all(made.valid_BN is None and made.width is None for made in proposals)
        caches = [made.target_cache for made in proposals if made.target_cache is not None]
        return Proposal(
            tokens_BN,
            valid_BN=None if whole else jnp.arange(self.num_nodes)[None] < end_B[:, None],
            probs_BNV=self._laws(parts, "probs_BNV", lambda mass: mass),
            opinion_BNV=self._laws(parts, "opinion_BNV", jnp.log),
            width=jnp.max(end_B) if self.widths else None,
            target_cache=caches[0] if caches else None,
        )

    def _laws(self, parts: list[tuple[Proposal, Array]], name: str, told: Callable[[Array], Array]) -> Array | None:
        """Every maker's own, and for one that has none as it is `told` of a point mass; None where none has any."""
        known = [law_BNV for made, _ in parts if (law_BNV := getattr(made, name)) is not None]
        if not known:
            return None
        batch, vocab_size = known[0].shape[0], known[0].shape[-1]
        laws_BNV = jnp.zeros((batch, self.num_nodes, vocab_size), jnp.float32)
        for made, at_BN in parts:
            law_BNV = getattr(made, name)
            if law_BNV is None:
                law_BNV = told(jax.nn.one_hot(made.tokens_BN, vocab_size, dtype=jnp.float32))
            laws_BNV = written(laws_BNV, law_BNV[:, : at_BN.shape[1]], at_BN)
        return laws_BNV


def _valid(made: Proposal, count: int) -> Array:
    """The first `count` guesses as far as they are valid without a gap."""
    batch, nodes = made.tokens_BN.shape
    valid_BN = jnp.ones((batch, nodes), bool) if made.valid_BN is None else made.valid_BN
    if made.width is not None:
        valid_BN &= (jnp.arange(nodes) < made.width)[None]
    return jnp.cumprod(valid_BN[:, :count], axis=1).astype(bool)


def _a_tree(drafter: Drafter) -> str:
    return f"a relay is of chains, and {type(drafter).__name__} guesses a tree"
