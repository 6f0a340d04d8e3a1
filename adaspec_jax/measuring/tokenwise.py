"""What target and draft say at every token of texts that are given: the evidence behind an acceptance rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

CHOICES = 5  # of either model that are kept at each token


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tokenwise:
    """Column s is about token s of a row, after those before it; all float32, at temperature 1, entropies in nats.

    Where `counted_BS` is false (prompt and padding), all else is 0.
    """

    counted_BS: Array  # bool
    p_BS: Array  # the target's probability of the token
    q_BS: Array  # the draft's
    kl_BS: Array  # KL(p || q) of the two laws
    overlap_BS: Array  # sum_x min(p, q): the chance that a guess drawn from q is accepted
    target_entropy_BS: Array
    draft_entropy_BS: Array
    target_top_BSC: Array  # int32: the target's likeliest tokens, and
    target_top_p_BSC: Array  # their probabilities
    draft_top_BSC: Array
    draft_top_q_BSC: Array


@partial(jax.jit, static_argnames="choices")
def tokenwise(target, draft, tokens_BS, prompt_lengths_B, lengths_B, *, choices: int = CHOICES) -> Tokenwise:
    """Of right-padded rows of prompt and continuation, of which the continuations count.

    `target` and `draft` are models, or a head as `AlongText`. One row at a time, so that two rows of [S, V] logits are
    all that is held.
    """

    def row(tokens_S, prompt_length, length):
        p_SV, q_SV = (jax.nn.log_softmax(model(tokens_S[None])[0][0].astype(jnp.float32)) for model in (target, draft))
        at_S, most = jnp.arange(tokens_S.shape[0]), min(choices, p_SV.shape[-1])
        counted_S = (at_S >= prompt_length) & (at_S < length) & (at_S > 0)

        def of_next(figure_S):  # logits at s are of token s + 1
            moved_S = jnp.roll(figure_S, 1, axis=0)
            return jnp.where(counted_S.reshape(-1, *[1] * (moved_S.ndim - 1)), moved_S, 0)

        named_S = jnp.roll(tokens_S, -1)[:, None]
        target_top_p_SC, target_top_SC = jax.lax.top_k(p_SV, most)
        draft_top_q_SC, draft_top_SC = jax.lax.top_k(q_SV, most)
        return Tokenwise(
            counted_S,
            *(of_next(jnp.exp(jnp.take_along_axis(law_SV, named_S, axis=-1)[:, 0])) for law_SV in (p_SV, q_SV)),
            of_next(_expected(p_SV, p_SV - q_SV)),
            of_next(jnp.sum(jnp.exp(jnp.minimum(p_SV, q_SV)), axis=-1)),
            *(of_next(_expected(law_SV, -law_SV)) for law_SV in (p_SV, q_SV)),
            *(of_next(target_top_SC), of_next(jnp.exp(target_top_p_SC))),
            *(of_next(draft_top_SC), of_next(jnp.exp(draft_top_q_SC))),
        )

    return jax.lax.map(lambda args: row(*args), (tokens_BS, prompt_lengths_B, lengths_B))


def _expected(law_SV: Array, figure_SV: Array) -> Array:
    """The mean under a law of logarithms; what the law leaves out counts nothing, whatever stands there."""
    weight_SV = jnp.exp(law_SV)
    return jnp.sum(jnp.where(weight_SV > 0, weight_SV * figure_SV, 0), axis=-1)
