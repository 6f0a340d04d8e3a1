"""Lossless to the bit: every token is decided by one program, whoever guesses.

A verification of n guesses multiplies n + 1 rows at once and a plain step one, and their sums may be rounded
otherwise: in bfloat16, where two logits are often equal, that changes greedy text. Here the target is always called at
a fixed number of nodes, those that nobody guessed included, and nothing before or after it is compiled into it.
Texts are equal between calls with one number of nodes and one shape of prompts: a batch of another size is another
program, whose sums may be rounded otherwise again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.prefill import empty_cache
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Accept, Asks, Context, Drafter, Model, Proposal, asks_of, is_chain

_STATES = ((), (-1,))  # layers that can be asked for without another program between embedding and final norm


@pytree()
class Isolated:
    """A `Model` between barriers that the compiler moves nothing across: the same program wherever it is called."""

    model: Model

    def init_cache(self, batch_size: int, slots: int, **room: int) -> Any:
        return self.model.init_cache(batch_size, slots, **room)

    def features(self, tokens_BT: Array, cache: Any = None, **where: Array) -> tuple[Array, Any]:
        tokens_BT, where = jax.lax.optimization_barrier((tokens_BT, where))
        hidden_BTD, cache = self.model.features(tokens_BT, cache, **where)
        return jax.lax.optimization_barrier(hidden_BTD), cache

    def unembed(self, hidden_BTD: Array) -> Array:
        return jax.lax.optimization_barrier(self.model.unembed(hidden_BTD))

    def __call__(self, tokens_BT: Array, cache: Any = None, **where: Array) -> tuple[Array, Any]:
        hidden_BTD, cache = self.features(tokens_BT, cache, **where)
        return self.unembed(hidden_BTD), cache


@pytree("num_nodes")
class Widened:
    """A drafter whose chains are verified at `num_nodes` nodes in every round; those it does not guess are invalid."""

    drafter: Drafter
    num_nodes: int

    @property
    def asks(self) -> Asks:
        return asks_of(self.drafter)

    def init(self, prompt: Context, slots: int) -> Any:
        return self.drafter.init(prompt, slots)

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        proposal, state = self.drafter.propose(key, state, context)
        if proposal.parents_BN is not None:
            raise ValueError(_a_tree(self.drafter))
        if proposal.entry is not None:
            raise ValueError(_entering(self.drafter))
        nodes = proposal.tokens_BN.shape[1]
        valid_BN = jnp.ones(proposal.tokens_BN.shape, bool) if proposal.valid_BN is None else proposal.valid_BN
        if proposal.width is not None:
            valid_BN &= (jnp.arange(nodes) < proposal.width)[None]

        def widened(values_BN: Array) -> Array:
            missing = ((0, 0), (0, self.num_nodes - nodes)) + ((0, 0),) * (values_BN.ndim - 2)
            return jnp.pad(values_BN, missing)

        wide = dataclasses.replace(
            proposal,
            tokens_BN=widened(proposal.tokens_BN),
            valid_BN=widened(valid_BN),
            probs_BNV=None if proposal.probs_BNV is None else widened(proposal.probs_BNV),
            opinion_BNV=None if proposal.opinion_BNV is None else widened(proposal.opinion_BNV),
            width=None,
        )
        return wide, state


def exactly(
    target: Model, drafter: Drafter, nodes: int | bool, *, sampling: Sampling, accept: Accept
) -> tuple[Isolated, Widened]:
    """Target and drafter as exact decoding has them, at so many nodes; True: the drafter's own number.

    ValueError for fewer than the drafter needs, and where draws or a lossy rule decide the text.
    """
    nodes = drafter.num_nodes if nodes is True else int(nodes)
    if not sampling.settled:
        raise ValueError("exact text is that of temperature 0, or of shared noise: others differ by the draws")
    if not getattr(accept, "lossless", True):
        raise ValueError("exact text is plain decoding's, and a lossy rule writes another")
    if drafter.num_nodes > nodes:
        raise ValueError(f"{type(drafter).__name__} guesses {drafter.num_nodes} tokens; exact={nodes} is too few")
    return Isolated(target), Widened(drafter, nodes)


def has_no_exact_text(drafter: Drafter) -> str | None:
    """Why a drafter's verifications are no chains of the target's own program, as far as it is known beforehand."""
    if not is_chain(drafter):
        return _a_tree(drafter)
    if getattr(drafter, "enters", False):
        return _entering(drafter)
    if asks_of(drafter).layers not in _STATES:
        return f"{type(drafter).__name__} reads states within the target, which makes another program of it"
    return None


def check_backend(target: Model, batch: int, nodes: int, slots: int) -> None:
    """ValueError where a row's logits depend on more than its own text: then no program is exact on this backend.

    Measured: all columns in one call, and one after the other in the first column, beside other guesses and in another
    row's place. Once for each shape and kind of model; not inside another program, where no values are known yet.
    """
    leaves, tree = jax.tree.flatten(target)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    kind = tree, tuple((leaf.shape, str(leaf.dtype)) for leaf in map(jnp.asarray, leaves))
    key = (kind, batch, nodes, slots, jax.default_backend())
    if key not in _KNOWN:
        _KNOWN[key] = _depends_on_its_text_alone(target, batch, nodes + 1, slots)
    if not _KNOWN[key]:
        shape = f"{batch} rows of {nodes + 1} tokens"
        raise ValueError(
            f"exact decoding is refused on {jax.default_backend()}: a row's bits depend on its place or on its "
            f"neighbours ({shape})"
        )


_KNOWN: dict[Any, bool] = {}


@lru_cache(maxsize=1)
def _step() -> Callable[..., Any]:
    return jax.jit(lambda target, tokens_BM, cache: Isolated(target)(tokens_BM, cache))


def _depends_on_its_text_alone(target: Model, batch: int, width: int, slots: int) -> bool:
    step, rng = _step(), np.random.default_rng(0)
    slots = max(slots, 3 * width)
    vocab = jax.eval_shape(lambda target: target(jnp.zeros((1, 1), jnp.int32))[0], target).shape[-1]
    before_BM, text_BM = (rng.integers(0, vocab, (batch, width)).astype(np.int32) for _ in range(2))
    empty = jax.tree.map(jnp.asarray, empty_cache(target, batch, slots, width - 1))
    moved = np.roll(np.arange(batch), 1)
    whole_BMV = np.asarray(step(target, text_BM, step(target, before_BM, empty)[1])[0])[moved]
    _, cache = step(target, before_BM[moved], empty)
    for column in range(width):
        guessed_BM = rng.integers(0, vocab, (batch, width)).astype(np.int32)
        guessed_BM[:, 0] = text_BM[moved, column]
        logits_BMV, cache = step(target, guessed_BM, cache)
        if np.asarray(logits_BMV[:, 0]).tobytes() != whole_BMV[:, column].tobytes():
            return False
        cache = cache.roll_back(jnp.full((batch,), width + column + 1, jnp.int32))
    return True


def _a_tree(drafter: Drafter) -> str:
    return f"exact decoding is for chains, and {type(drafter).__name__} guesses a tree"


def _entering(drafter: Drafter) -> str:
    return f"exact decoding verifies from the tokens on, and {type(drafter).__name__} from states within the target"
