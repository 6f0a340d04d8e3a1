"""Two models side by side along a text that is given."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.jit
def teacher_forced(target, draft, tokens_BS, prompt_lengths_B, lengths_B):
    """Sums over the continuation's positions of sum_x min(p, q) at temperature 1 and of argmax equality, per row.

    One row at a time, so that two rows of [S, V] logits are all that is held.
    """

    def row(tokens_S, prompt_length, length):
        p_SV, q_SV = (model(tokens_S[None])[0][0].astype(jnp.float32) for model in (target, draft))
        overlap_S = jnp.sum(jnp.minimum(jax.nn.softmax(p_SV), jax.nn.softmax(q_SV)), axis=-1)
        same_S = jnp.argmax(p_SV, axis=-1) == jnp.argmax(q_SV, axis=-1)
        predicts_S = jnp.arange(1, tokens_S.shape[0] + 1)  # position s predicts token s + 1
        counted_S = (predicts_S >= prompt_length) & (predicts_S < length)
        totals = jnp.sum(jnp.where(counted_S, overlap_S, 0.0)), jnp.sum(counted_S & same_S), jnp.sum(counted_S)
        return totals

    return jax.lax.map(lambda args: row(*args), (tokens_BS, prompt_lengths_B, lengths_B))
