"""The longest path of guesses that pass, each by itself: how lossy rules decide that ask for no random number."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.walk import row, shape_of
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.tree import Tree
from adaspec_jax.decoding.types import Proposal, Verdict


def in_place_of_guesses(proposal: Proposal, logits_BMV: Array) -> Array:
    """The target's logits [B, N, V], float32, from which each guess might have been drawn."""
    is_chain, parents_BN, _ = shape_of(proposal)
    if is_chain:
        return logits_BMV[:, :-1].astype(jnp.float32)
    return jnp.take_along_axis(logits_BMV, parents_BN[..., None] + 1, axis=1).astype(jnp.float32)


def keep_longest(
    key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling, passes_BN: Array, logp_BN: Array
) -> Verdict:
    """The longest path of valid guesses that pass; of several the one with the greatest sum of `logp_BN`.

    `logp_BN`: the guesses' log-probabilities under the target; one of probability zero, which processors rule out (and
    filters, where the rule applies them), never stays. The next token follows the target's law where the path ends, as
    after a whole proposal: what was refused there does not change it. Judged are the path and what was refused at its
    end.
    """
    tree, (_, parents_BN, valid_BN), root = Tree.of(proposal), shape_of(proposal), ((0, 0), (1, 0))
    passes_BN &= valid_BN & (logp_BN > -jnp.inf)
    alive_BN = jnp.all(passes_BN[:, None] | ~tree.ancestors_BNN, axis=-1)
    counted_BNN = tree.ancestors_BNN & alive_BN[..., None]
    total_BM = jnp.pad(jnp.sum(jnp.where(counted_BNN, logp_BN[:, None], 0.0), axis=-1), root)
    depth_BM = jnp.pad(jnp.where(alive_BN, tree.depth_BN, -1), root)
    deepest_BM = depth_BM == jnp.max(depth_BM, axis=1, keepdims=True)
    end_B = jnp.argmax(jnp.where(deepest_BM, total_BM, -jnp.inf), axis=1)  # 0: the root
    path_BMN = jnp.pad(jnp.broadcast_to(tree.ancestors_BNN, counted_BNN.shape), (*root, (0, 0)))
    accepted_BN = row(path_BMN, end_B)
    judged_BN = accepted_BN | (valid_BN & (parents_BN + 1 == end_B[:, None]))
    return Verdict(accepted_BN, judged_BN, sampling.pick(key, row(logits_BMV, end_B))[0])
