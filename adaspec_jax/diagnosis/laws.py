"""What target and draft say along texts, summed over each, at the temperature that is served."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

DRAWN, LIKELIEST = "drawn", "likeliest"  # a draft's guesses, where the target is sampled
SURE = 0.7  # of the target: its likeliest token has at least this probability
TEMPERED = (0.4, 0.6, 0.8, 1.25, 1.6, 2.5)  # by which the draft's logits are divided once more


@partial(jax.jit, static_argnames=("temperature", "guesses"))
def law_sums(
    target, draft, tokens_BS, prompt_lengths_B, lengths_B, ends_E, *, temperature: float, guesses: str = DRAWN
) -> dict[str, Array]:
    """Per row of right-padded prompt and continuation, sums over the tokens of the continuation.

    "accepted" is of the argmax's equality where `temperature` is 0; else of sum_x min(p, q) at it ("drawn", which is
    recorded in any case), or of p of the draft's likeliest token. Nats and entropies are at temperature 1. Where the
    continuation has an end of text, its figures are "end_...".
    """

    def row(args):
        tokens_S, prompt_length, length = args
        logits = [model(tokens_S[None])[0][0].astype(jnp.float32) for model in (target, draft)]
        p_SV, q_SV = (jax.nn.log_softmax(logits_SV) for logits_SV in logits)
        named_S = jnp.roll(tokens_S, -1)
        after_S = jnp.arange(1, tokens_S.shape[0] + 1)
        counted_S = (after_S >= prompt_length) & (after_S < length)

        def of_named(law_SV):
            return jnp.take_along_axis(law_SV, named_S[:, None], axis=-1)[:, 0]

        same_S = (jnp.argmax(p_SV, axis=-1) == jnp.argmax(q_SV, axis=-1)).astype(jnp.float32)
        served_SV = jax.nn.log_softmax(logits[0] / temperature) if temperature else p_SV
        sure_S = jnp.exp(jnp.max(served_SV, axis=-1))
        drawn_S = accepted_S = _overlap(served_SV, logits[1] / temperature) if temperature else same_S
        if temperature and guesses == LIKELIEST:
            guess_S = jnp.argmax(q_SV, axis=-1)
            accepted_S = jnp.exp(jnp.take_along_axis(served_SV, guess_S[:, None], axis=-1)[:, 0])
        ends_S = jnp.isin(named_S, ends_E)
        figures = {
            "tokens": jnp.ones_like(same_S),
            "accepted": accepted_S,
            "drawn": drawn_S,
            "agreed": same_S,
            "overlap": _overlap(p_SV, q_SV),
            "kl": _expected(p_SV, p_SV - q_SV),
            "nats_target": -of_named(p_SV),
            "nats_draft": -of_named(q_SV),
            "entropy": _expected(p_SV, -p_SV),
            "likeliest": sure_S,
            "sure": (sure_S >= SURE).astype(jnp.float32),
            "sure_accepted": jnp.where(sure_S >= SURE, accepted_S, 0),
            "ended": ends_S.astype(jnp.float32),
            "end_accepted": jnp.where(ends_S, accepted_S, 0),
            "end_target": jnp.where(ends_S, jnp.exp(of_named(p_SV)), 0),
            "end_draft": jnp.where(ends_S, jnp.exp(of_named(q_SV)), 0),
        }
        for factor in TEMPERED if temperature and guesses == DRAWN else ():
            figures[f"tempered {factor:g}"] = _overlap(served_SV, logits[1] / temperature / factor)
        return {name: jnp.sum(jnp.where(counted_S, figure_S, 0)) for name, figure_S in figures.items()}

    return jax.lax.map(row, (tokens_BS, prompt_lengths_B, lengths_B))


def _overlap(p_SV: Array, draft_logits_SV: Array) -> Array:
    """sum_x min(p, q), of logarithms p and logits of q."""
    return jnp.sum(jnp.exp(jnp.minimum(p_SV, jax.nn.log_softmax(draft_logits_SV))), axis=-1)


def _expected(law_SV: Array, figure_SV: Array) -> Array:
    """The mean under a law of logarithms; what the law leaves out counts nothing."""
    weight_SV = jnp.exp(law_SV)
    return jnp.sum(jnp.where(weight_SV > 0, weight_SV * figure_SV, 0), axis=-1)
