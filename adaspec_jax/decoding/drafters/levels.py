"""Trees whose shape is known before anything is traced, guessed level by level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.present import with_token
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.tree import Tree
from adaspec_jax.decoding.types import Context, Proposal

Counts = tuple[tuple[int, ...], ...]  # how many children each node has, level by level; ((2,), (1, 1)): two chains


class Level(NamedTuple):
    """The W nodes of a level that have children: they are read, the others need not be."""

    depth: int  # 1: below the root
    places: slice  # theirs among all nodes that are read, in that order
    above_W: np.ndarray  # which of the nodes read one level above is the parent; below the root 0
    tokens_BW: Array


# (key, logits_BWV, width, sampling) -> (tokens [B, W * width], siblings side by side; the law of each or None, point
# masses; which are valid, or None, all).
Found = tuple[Array, Array | None, Array | None]  # (tokens_BN, probs_BNV, valid_BN) of a level's children
Children = Callable[[Array, Array, int, Sampling], Found]


def checked(counts: Counts) -> Counts:
    """The counts; ValueError where they are no tree's."""
    if not counts or len(counts[0]) != 1:
        raise ValueError(f"a tree begins with the children of its root, one number: not {counts[:1]}")
    for above, below in zip(counts, counts[1:], strict=False):
        if len(below) != sum(above):
            raise ValueError(f"a level of {sum(above)} nodes is followed by {len(below)} numbers of children: {counts}")
    if any(min(row) < 0 or not sum(row) for row in counts):
        raise ValueError(f"every level of a tree has nodes, and none has fewer than 0 children: not {counts}")
    return counts


def one_by_one(length: int) -> Counts:
    """A chain: one node below the other."""
    return ((1,),) * length


def nodes_of(counts: Counts) -> int:
    return sum(map(sum, counts))


def parents_of(counts: Counts) -> np.ndarray:
    """int32 [N]: each node's parent, -1 the root; levels one after another, siblings side by side."""
    parents: list[int] = []
    for row in counts:
        first = len(parents) - len(row)  # of the level above; the root, whose row is one number, stands at -1
        parents += [first + place for place, count in enumerate(row) for _ in range(count)]
    return np.asarray(parents, np.int32)


def ranks_of(counts: Counts) -> list[np.ndarray]:
    """For each level its nodes' places among their siblings, from 0."""
    return [np.asarray([rank for count in row for rank in range(count)], np.int32) for row in counts]


def read_nodes(counts: Counts, lengths_B: Array, slots: int) -> tuple[Array, Array]:
    """(position_BR, mask_BRS) of the nodes that are read, in a cache whose last of `lengths_B` entries is the root."""
    inner_R = np.flatnonzero([count for row in counts[1:] for count in row])
    place_N = np.full(nodes_of(counts) + 1, -1)  # the last one is the root's, at -1
    place_N[inner_R] = np.arange(len(inner_R))
    shape = Tree.of(Proposal(jnp.asarray(inner_R[None]), place_N[parents_of(counts)[inner_R]].astype(np.int32)))
    # The root is already in the cache: drop its row, and count node slots from the first one after it.
    return lengths_B[:, None] - 1 + shape.depth_BN, shape.attention_mask(lengths_B - 1, slots)[:, 1:]


def guessed_tree(
    counts: Counts,
    expand: Callable[[Any, Level], tuple[Array, Any]],
    state: Any,
    logits_BV: Array,
    key: Array,
    context: Context,
    children: Children,
) -> tuple[Proposal, Any]:
    """Guesses in the shape of `counts`, and the state after.

    `expand`: (state, Level) -> (logits [B, W, V] after the level's nodes, the state); whatever reads them. `logits_BV`
    are those after the root. Where noise is shared, children are made of logits with the noise of their place.
    """
    logits_BWV, read, sampling = logits_BV[:, None], 0, context.sampling
    made: list[tuple[Array | None, ...]] = []
    present_BV = context.present(logits_BV.shape[-1])
    present_BWV = None if present_BV is None else present_BV[:, None]
    keys = jax.random.split(key, len(counts))
    for depth, (row, level_key) in enumerate(zip(counts, keys, strict=True)):
        row_W = np.asarray([count for count in row if count])
        logits_BWV = sampling.processed(logits_BWV, present_BWV)
        noisy_BWV = _noisy(context, logits_BWV, depth)
        found = _without_surplus(children(level_key, noisy_BWV, int(row_W.max()), sampling), row_W)
        above_N = np.repeat(np.arange(len(row_W)), row_W)
        made.append((*found, logits_BWV[:, above_N] if context.opinion else None))
        if depth + 1 == len(counts):
            break
        inner_W = np.flatnonzero(counts[depth + 1])
        tokens_BN = found[0]
        tokens_BW = tokens_BN if len(inner_W) == tokens_BN.shape[1] else tokens_BN[:, inner_W]
        level = Level(depth + 1, slice(read, read + len(inner_W)), above_N[inner_W], tokens_BW)
        if present_BWV is not None:
            present_BWV = with_token(present_BWV[:, level.above_W], tokens_BW)
        logits_BWV, state = expand(state, level)
        read = level.places.stop
    joined_BN, probs_BNV, valid_BN, opinion_BNV = map(_joined, zip(*made, strict=True))
    assert joined_BN is not None, "children are tokens"
    return Proposal(joined_BN, parents_of(counts), valid_BN, probs_BNV, opinion_BNV), state


def _without_surplus(found: Found, row_W: np.ndarray) -> Found:
    """The children that each node has, of as many for all as the one with most has."""
    width = int(row_W.max())
    if len(row_W) * width == row_W.sum():
        return found
    kept_N = np.concatenate([place * width + np.arange(count) for place, count in enumerate(row_W)])
    tokens_BN, probs_BNV, valid_BN = (None if x is None else x[:, kept_N] for x in found)
    assert tokens_BN is not None, "children are tokens"
    return tokens_BN, probs_BNV, valid_BN


def _joined(parts: tuple[Any, ...]) -> Array | None:
    """The levels side by side; None where they have none of it."""
    return None if parts[0] is None else jnp.concatenate(parts, axis=1)


def _noisy(context: Context, logits_BWV: Array, depth: int) -> Array:
    """The logits, plus the noise of the place that nodes below `depth` others take, where noise is shared."""
    if not context.has_noise:
        return logits_BWV
    batch, width, _ = logits_BWV.shape
    return context.noisy(logits_BWV, jnp.broadcast_to(context.lengths_B[:, None] + depth, (batch, width)))


def likeliest(key: Array, logits_BWV: Array, width: int, sampling: Sampling) -> Found:
    """`Children`: the likeliest tokens, likeliest first, at any temperature.

    Where the vocabulary has no more of them, the last stands there again: as a point mass it cannot be accepted twice.
    """
    del key, sampling
    batch, _, vocab_size = logits_BWV.shape
    missing = max(width - vocab_size, 0)
    tokens_BWC = jax.lax.top_k(logits_BWV, width - missing)[1].astype(jnp.int32)
    if missing:
        tokens_BWC = jnp.pad(tokens_BWC, ((0, 0), (0, 0), (0, missing)), mode="edge")
    return tokens_BWC.reshape(batch, -1), None, None


def independent(key: Array, logits_BWV: Array, width: int, sampling: Sampling) -> Found:
    """`Children`: draws from the law after each node; the likeliest tokens where those are settled."""
    if sampling.settled:
        return likeliest(key, logits_BWV, width, sampling)
    probs_BNV = jnp.repeat(sampling.probs(logits_BWV), width, axis=1)
    return sampling.draw(key, probs_BNV), probs_BNV, None


def distinct(key: Array, logits_BWV: Array, width: int, sampling: Sampling) -> Found:
    """`Children`: each drawn from what its earlier siblings have left of the law, which is the law that it states.

    A sibling for which nothing is left is invalid. The likeliest tokens where draws are settled.
    """
    if sampling.settled:
        return likeliest(key, logits_BWV, width, sampling)
    left_BWV, drawn = sampling.probs(logits_BWV), []
    for sibling_key in jax.random.split(key, width):
        mass_BW = jnp.sum(left_BWV, axis=-1)
        law_BWV = left_BWV / jnp.where(mass_BW > 0, mass_BW, 1.0)[..., None]
        token_BW = sampling.draw(sibling_key, law_BWV)
        drawn.append((token_BW, law_BWV, mass_BW > 0))
        taken_BWV = jnp.arange(left_BWV.shape[-1])[None, None] == token_BW[..., None]
        left_BWV = jnp.where(taken_BWV, 0.0, law_BWV)
    batch = logits_BWV.shape[0]
    tokens_BN, laws_BNV, valid_BN = (
        jnp.stack(a, axis=2).reshape(batch, -1, *a[0].shape[2:]) for a in zip(*drawn, strict=True)
    )
    return tokens_BN, laws_BNV, valid_BN
