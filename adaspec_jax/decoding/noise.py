"""Drafter-invariant sampling: the random numbers of a token belong to its request and its place, whoever draws it.

With `Sampling(shared_noise=True)` a token is the greatest of its filtered logits plus Gumbel noise, which is a draw
from their law. The noise follows from (seed, request, position) alone, so what the target would write is settled before
anything is guessed: any drafter, any number of guesses, any company in a batch, a queue and plain decoding all sample
one text for a seed, as greedy decoding has one text, and with its reservation: sums that other shapes round otherwise
may turn a near-tie. The draft adds the same noise to its own logits (in a tree it takes the greatest few, which are
draws without replacement), and a guess stays where it is the target's choice, under any lossless rule.

What it costs: a guess stays with probability sum_x 1 / sum_y max(p_y / p_x, q_y / q_x), which is between
(1 - d) / (1 + d) and the 1 - d of rejection, for the laws' total variation d; and a token takes a random number for
every entry of the vocabulary, where inversion takes two. (Daliri, Musco and Suresh 2024, arXiv 2408.07978.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def request_keys(key: Array, index_B: Array) -> Array:
    """A key per request, by its index: `Context.noise_B`, where a request is not always at one place of a batch."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.asarray(index_B))


def noise_at(keys_B: Array, positions_BT: Array, vocab_size: int) -> Array:
    """Gumbel noise [B, T, V], float32, of the tokens at these positions of their rows, counted from 0."""

    def of_token(key: Array, position: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, position), (vocab_size,), jnp.float32)

    return jax.vmap(jax.vmap(of_token, (None, 0)))(keys_B, positions_BT)


def noise_in_tree(context: Any, tree: Any, deepest: int, logits_BMV: Array) -> Array:
    """The noise [B, M, V] of what follows the root and each node of a `Tree` after this `Context`.

    No node is deeper than `deepest`; nodes of one depth share their noise.
    """
    batch, places, vocab_size = logits_BMV.shape
    depth_BM = jnp.broadcast_to(jnp.pad(jnp.asarray(tree.depth_BN), ((0, 0), (1, 0))), (batch, places))
    position_BD = context.lengths_B[:, None] + jnp.arange(deepest + 1)[None]
    noise_BDV = noise_at(context.noise_B, position_BD, vocab_size)
    return jnp.take_along_axis(noise_BDV, depth_BM[..., None], axis=1)


def check_shared(noise_B: Array | None, accept: Any) -> None:
    """ValueError where noise cannot be shared: there is none, or the rule is lossy and the text settled."""
    if noise_B is None:
        raise ValueError("noise is to be shared and the context has none: rounds inside others take their noise_B")
    if not getattr(accept, "lossless", True):
        raise ValueError("shared noise settles what the target writes: a lossy rule has nothing to decide")
