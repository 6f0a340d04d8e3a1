"""Trees that grow where a draft thinks them likeliest, and the independent draft model that grows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.reread import read_on, read_prompt, reread
from adaspec_jax.decoding.present import present_in_tree
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.stopping import Fallback
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


class Beams(NamedTuple):
    """The W nodes of each row that one step reads, at W of R places; every step has places of its own.

    Where a row has fewer nodes to read, the others are not real, and what is said of them is dropped.
    """

    first: Array  # the first place; the others follow
    tokens_BW: Array
    depth_BW: Array  # 1: below the root
    parents_BW: Array  # the place where the parent was read, -1: the root
    sees_BWR: Array  # bool: the places of the node and of those above it
    read_BR: Array  # the tokens at all places so far

    def attention_mask(self, start_B: Array, slots: int) -> Array:
        """`mask_BWS` for a cache with `start_b` tokens, whose slots from there on are the places."""
        place_BS = jnp.arange(slots)[None] - start_B[:, None]
        shape, places = (*self.tokens_BW.shape, slots), self.read_BR.shape[1]
        index_BWS = jnp.broadcast_to(jnp.clip(place_BS, 0, places - 1)[:, None], shape)
        sees_BWS = jnp.take_along_axis(self.sees_BWR, index_BWS, axis=2)
        return (place_BS < 0)[:, None] | ((place_BS < places)[:, None] & sees_BWS)


class Grown(NamedTuple):
    """The likeliest nodes that were found, likeliest first, and so parents before their children."""

    tokens_BN: Array
    parents_BN: Array  # -1: the root
    valid_BN: Array  # the first of each row, as many as there are
    depth_BN: Array
    score_BN: Array

    def deepest(self) -> tuple[Array, Array]:
        """(depth_B, score_B) of the likeliest path among the longest."""
        depth_B = jnp.max(jnp.where(self.valid_BN, self.depth_BN, 0), axis=1)
        longest_BN = self.valid_BN & (self.depth_BN == depth_B[:, None])
        return depth_B, jnp.max(jnp.where(longest_BN, self.score_BN, -jnp.inf), axis=1)


class _Nodes(NamedTuple):
    tokens_BN: Array
    score_BN: Array  # -inf: no node
    depth_BN: Array
    parents_BN: Array  # the place where the parent was read, -1: the root
    place_BN: Array  # where it was read itself, -1: nowhere yet

    @classmethod
    def none(cls, batch: int, nodes: int) -> _Nodes:
        zeros_BN = jnp.zeros((batch, nodes), jnp.int32)
        return cls(zeros_BN, jnp.full((batch, nodes), -jnp.inf), zeros_BN, zeros_BN - 1, zeros_BN - 1)

    def at(self, index_BN: Array) -> _Nodes:
        return _Nodes(*(jnp.take_along_axis(x, index_BN, axis=1) for x in self))

    def likeliest(self, others: _Nodes) -> tuple[_Nodes, Array]:
        """As many as these, likeliest first, of equals those found first; whether there are others among them."""
        count = self.score_BN.shape[1]
        score_BN, index_BN = jax.lax.top_k(jnp.concatenate([self.score_BN, others.score_BN], axis=1), count)
        both = _Nodes(*(jnp.concatenate(pair, axis=1) for pair in zip(self, others, strict=True)))
        return both.at(index_BN), jnp.any((index_BN >= count) & (score_BN > -jnp.inf), axis=1)

    def children(self, logprobs_BWV: Array, branch: int, decay: float, share: float) -> _Nodes:
        """The `branch` likeliest tokens after each node, of which those below `share` of the likeliest are none."""
        most_BWC, tokens_BWC = jax.lax.top_k(logprobs_BWV, branch)
        score_BWC = self.score_BN[..., None] + (most_BWC + math.log(decay))
        if share:
            score_BWC = jnp.where(most_BWC >= most_BWC[..., :1] + math.log(share), score_BWC, -jnp.inf)
        below = (self.depth_BN + 1, self.place_BN, jnp.full_like(self.place_BN, -1))
        flat = (x.reshape(len(x), -1) for x in (tokens_BWC.astype(jnp.int32), score_BWC))
        return _Nodes(*flat, *(jnp.repeat(x_BW, branch, axis=1) for x_BW in below))

    def grown(self) -> Grown:
        valid_BN = self.score_BN > -jnp.inf
        above_BNN = self.parents_BN[:, :, None] == self.place_BN[:, None, :]
        parents_BN = jnp.where(valid_BN & (self.parents_BN >= 0), jnp.argmax(above_BNN, axis=2), -1)
        return Grown(self.tokens_BN, parents_BN.astype(jnp.int32), valid_BN, self.depth_BN, self.score_BN)


class _Growing(NamedTuple):
    step: Array
    nodes: _Nodes
    opens_BN: Array  # bool: nodes that may be read next
    read_BR: Array
    sees_BRR: Array
    state: Any


def grow(
    expand: Callable[[Any, Beams], tuple[Array, Any]],
    state: Any,
    logprobs_BV: Array,
    *,
    budget: int,
    beams: int,
    branch: int,
    depth: int,
    decay: float = 1.0,
    share: float = 0.0,
    least_B: Array | None = None,
    by_level: bool = False,
) -> tuple[Grown, Any]:
    """(the `budget` likeliest nodes, the state after): best-first, by the draft's log-probabilities along the path.

    A node's score is its parent's, its log-probability and log `decay`. In every step the `beams` best nodes of those
    kept are read that were not yet, and the `branch` likeliest tokens after each become nodes; the best `budget` of all
    are kept. A row ends when a step brings nothing that is kept, and all rows after `depth` - 1 steps. Of equal scores
    the node found first is the better one.

    Args:
      expand: (state, Beams) -> (the log-probabilities [B, W, V] after the nodes, the state); whatever reads them.
      logprobs_BV: after the root.
      depth: of the deepest nodes; R = (depth - 1) * min(beams, budget) places are read at most.
      share: a child less likely than so much of its likeliest sibling is none.
      least_B: nodes scored below it stay and are not read.
      by_level: only children of the step before are read: the tree of EAGLE-2 (arXiv 2406.16858), with `beams` equal to
        `branch`, without decay.
    """
    batch, vocab_size = logprobs_BV.shape
    branch, beams = min(branch, vocab_size), min(beams, budget)
    places = (depth - 1) * beams
    rule: dict[str, Any] = {"branch": branch, "decay": decay, "share": share}

    def opens(nodes: _Nodes, step: Array | int, going_B: Array) -> Array:
        opens_BN = (nodes.score_BN > -jnp.inf) & (nodes.place_BN < 0) & going_B[:, None]
        if least_B is not None:
            opens_BN &= nodes.score_BN >= least_B[:, None]
        return opens_BN & (nodes.depth_BN == step + 1) if by_level else opens_BN

    def read(at: _Growing) -> _Growing:
        score_BW, index_BW = jax.lax.top_k(jnp.where(at.opens_BN, at.nodes.score_BN, -jnp.inf), beams)
        place_W, first = at.step * beams + jnp.arange(beams, dtype=jnp.int32), at.step * beams
        here_BWN = (index_BW[..., None] == jnp.arange(budget)[None, None]) & (score_BW > -jnp.inf)[..., None]
        place_BN = jnp.max(jnp.where(here_BWN, place_W[None, :, None], at.nodes.place_BN[:, None]), axis=1)
        nodes = at.nodes._replace(place_BN=place_BN)
        read = nodes.at(index_BW)._replace(score_BN=score_BW)
        above_BWR = jnp.take_along_axis(at.sees_BRR, jnp.maximum(read.parents_BN, 0)[..., None], axis=1)
        own_BWR = jnp.broadcast_to(place_W[None, :, None] == jnp.arange(places)[None, None], above_BWR.shape)
        sees_BWR = (above_BWR & (read.parents_BN >= 0)[..., None]) | own_BWR
        read_BR = jax.lax.dynamic_update_slice_in_dim(at.read_BR, read.tokens_BN, first, axis=1)
        sees_BRR = jax.lax.dynamic_update_slice_in_dim(at.sees_BRR, sees_BWR, first, axis=1)
        step = Beams(first, read.tokens_BN, read.depth_BN, read.parents_BN, sees_BWR, read_BR)
        logprobs_BWV, state = expand(at.state, step)
        nodes, going_B = nodes.likeliest(read.children(logprobs_BWV, **rule))
        return _Growing(at.step + 1, nodes, opens(nodes, at.step + 1, going_B), read_BR, sees_BRR, state)

    root = _Nodes.none(batch, 1)._replace(score_BN=jnp.zeros((batch, 1)))
    nodes, going_B = _Nodes.none(batch, budget).likeliest(root.children(logprobs_BV[:, None], **rule))
    if not places:
        return nodes.grown(), state
    read_BR, sees_BRR = jnp.zeros((batch, places), jnp.int32), jnp.zeros((batch, places, places), bool)
    begun = _Growing(jnp.int32(0), nodes, opens(nodes, 0, going_B), read_BR, sees_BRR, state)
    ended = jax.lax.while_loop(lambda at: jnp.any(at.opens_BN) & (at.step < depth - 1), read, begun)
    return ended.nodes.grown(), ended.state


def grown_after(
    context: Context, read: Callable[[Any, Beams], tuple[Array, Any]], state: Any, logits_BV: Array, **how: Any
) -> tuple[Grown, Any]:
    """`grow` after a context, by log-probabilities at temperature 1; with shared noise, those of the noisy logits.

    `read`: (state, Beams) -> (the logits [B, W, V] after the nodes, the state). `logits_BV` are those after the root.
    """
    present_BV = context.present(logits_BV.shape[-1])

    def logprobs(logits_BWV: Array, depth_BW: Array, present_BWV: Array | None) -> Array:
        logits_BWV = context.sampling.processed(logits_BWV, present_BWV)
        if context.has_noise:
            logits_BWV = context.noisy(logits_BWV, context.lengths_B[:, None] + depth_BW)
        return jax.nn.log_softmax(logits_BWV.astype(jnp.float32))

    def expand(state: Any, beams: Beams) -> tuple[Array, Any]:
        logits_BWV, state = read(state, beams)
        present_BWV = None
        if present_BV is not None:
            present_BWV = present_in_tree(present_BV, beams.read_BR, beams.sees_BWR)[:, 1:]
        return logprobs(logits_BWV, beams.depth_BW, present_BWV), state

    present_B1V = None if present_BV is None else present_BV[:, None]
    first_B1V = logprobs(logits_BV[:, None], jnp.zeros_like(context.lengths_B)[:, None], present_B1V)
    return grow(expand, state, first_B1V[:, 0], **how)


@pytree("budget", "beams", "branch", "depth", "decay", "share", "widths")
class GrowthDrafter:
    """The `budget` likeliest continuations that a best-first search of at most `depth` draft passes finds, as a tree.

    SpecExec (Svirschevski et al. 2024, arXiv 2406.02532), as its code grows trees for drafts of the Llama family:
    `grow` has the rule, of which `beams`, `branch` and `decay` are the code's defaults. Its script has a depth of 32
    and budgets of 16 to 4096; 16 and 64 are ours. Scores are log-probabilities at temperature 1 whatever the
    sampling's, as there; with shared noise those of the filtered logits with it, which is ours. Guesses are point
    masses, and `match_sample` is the paper's rule: one sample of the target at every node.

    With a `fallback`, paths less likely than its threshold are read no further. Of `widths`, numbers of guesses, the
    smallest that holds the trees of all rows is verified.

    Raises:
      ValueError: numbers below 1; a decay or a share that is none.
    """

    model: Model
    budget: int = 64
    beams: int = 32
    branch: int = 16
    depth: int = 16
    decay: float = 0.95
    share: float = 0.0
    fallback: Fallback | None = None
    widths: tuple[int, ...] = ()

    asks = Asks(likeliest=0)
    branches = True  # however deep it may grow

    def __post_init__(self) -> None:
        for name in ("budget", "beams", "branch", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.decay <= 1 or not 0 <= self.share <= 1:
            raise ValueError(f"decay is above 0, share at least 0, both at most 1: not {self.decay} and {self.share}")
        object.__setattr__(self, "depth", min(self.depth, self.budget))  # no path is longer

    @property
    def num_nodes(self) -> int:
        return self.budget

    def init(self, prompt: Context, slots: int) -> Any:
        return self._begun(read_prompt(self.model, prompt, slots + self._places), prompt)

    def extend(self, state: Any, prompt: Context, kept_B: Array, width: int) -> Any:
        cache = state if self.fallback is None else state[0]
        return self._begun(read_on(self.model, cache, prompt, kept_B, width, window=self._window(prompt)), prompt)

    def _begun(self, cache: Any, prompt: Context) -> Any:
        return cache if self.fallback is None else (cache, self.fallback.init(prompt))

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        cache, threshold_B = state, None
        if self.fallback is not None:
            cache, threshold_B = state[0], self.fallback.begin(state[1], context)
        logits_BV, _, cache = reread(self.model, cache, context, window=self._window(context))
        grown, cache = self._grown(logits_BV, cache, context, threshold_B)
        width = jnp.max(jnp.sum(grown.valid_BN, axis=1)) if self.widths else None
        proposal = Proposal(grown.tokens_BN, grown.parents_BN, grown.valid_BN, width=width)
        if self.fallback is None or threshold_B is None:
            return proposal, cache
        return proposal, (cache, self.fallback.end(threshold_B, *grown.deepest()))

    def _grown(self, logits_BV: Array, cache: Any, context: Context, threshold_B: Array | None) -> tuple[Grown, Any]:
        slots = context.tokens_BS.shape[1] + self._places

        def read(cache: Any, beams: Beams) -> tuple[Array, Any]:
            where = {"positions_BT": context.lengths_B[:, None] - 1 + beams.depth_BW}
            return self.model(beams.tokens_BW, cache, **where, mask_BTS=beams.attention_mask(context.lengths_B, slots))

        shape = {name: getattr(self, name) for name in ("budget", "beams", "branch", "depth", "decay", "share")}
        least_B = None if threshold_B is None else jnp.log(threshold_B)
        return grown_after(context, read, cache, logits_BV, least_B=least_B, **shape)

    @property
    def _places(self) -> int:
        """Tokens that a round reads beyond the committed ones: `grow`'s R."""
        return (self.depth - 1) * min(self.beams, self.budget)

    def _window(self, context: Context) -> int:
        # The accepted path lies scattered in this cache, so all a round can commit is read again: depth + 1 tokens.
        return self.depth - 1 + context.behind
