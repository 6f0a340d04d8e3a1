"""What rounds keep of the target's laws: log-probabilities of what was written, and whole laws for rounds outside.

Both are taken from the verification that decided a token, so that nothing is read twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import Sampling


@dataclass(frozen=True)
class Logprobs:
    """What to keep at every new token: its log-probability in nats, and the `top` likeliest tokens with theirs.

    They are the model's own, of its logits as they are (vLLM's "raw_logprobs"). `processed`: of the law that the token
    was taken from, after processors, temperature and filters, -inf for what those rule out; greedy decoding has no
    temperature, and its law is that of the logits after the processors.
    """

    top: int = 0
    processed: bool = False

    def __post_init__(self) -> None:
        if self.top < 0:
            raise ValueError(f"logprobs must be 0 (the tokens written alone) or positive, not {self.top}")


@pytree()
class TokenLogprobs:
    """Per column of `Generation.tokens_BS`; 0 in columns of the prompt and past the end. Log-probabilities in nats."""

    chosen_BS: Array  # of the token there
    top_BSK: Array  # int32: the likeliest tokens there, likeliest first
    of_top_BSK: Array


def none_yet(asked: Logprobs | None, batch: int, slots: int) -> TokenLogprobs | None:
    if asked is None:
        return None
    zeros_BS, zeros_BSK = jnp.zeros((batch, slots), jnp.float32), jnp.zeros((batch, slots, asked.top), jnp.float32)
    return TokenLogprobs(zeros_BS, zeros_BSK.astype(jnp.int32), zeros_BSK)


def with_logprobs(
    asked: Logprobs | None,
    kept: TokenLogprobs | None,
    sampling: Sampling,
    logits: tuple[Array, Array],
    rows_BM: Array,
    tokens_BM: Array,
    at_BM: Array,
) -> TokenLogprobs | None:
    """`kept`, and what a round commits: token m, at column `at_BM`, was decided by row `rows_BM` of the logits.

    `logits`: [B, M, V], before the processors and after them.
    """
    if kept is None:
        return None
    raw_BMV, logits_BMV = (each.astype(jnp.float32) for each in logits)
    if asked.processed:
        raw_BMV = logits_BMV if sampling.greedy else sampling.filtered(logits_BMV)
    if asked.top > raw_BMV.shape[-1]:
        raise ValueError(f"logprobs are asked for {asked.top} tokens, and the vocabulary has {raw_BMV.shape[-1]}")
    sum_BM1 = jax.nn.logsumexp(raw_BMV, axis=-1, keepdims=True)
    top_BMK, token_BMK = jax.lax.top_k(raw_BMV, asked.top)
    batch_B1 = jnp.arange(len(rows_BM))[:, None]
    chosen_BM = raw_BMV[batch_B1, rows_BM, tokens_BM] - sum_BM1[batch_B1, rows_BM, 0]
    return TokenLogprobs(
        written(kept.chosen_BS, chosen_BM, at_BM),
        written(kept.top_BSK, token_BMK[batch_B1, rows_BM], at_BM),
        written(kept.of_top_BSK, (top_BMK - sum_BM1)[batch_B1, rows_BM], at_BM),
    )


def with_laws(laws_BLV: Array | None, sampling: Sampling, logits_BMV: Array, rows_BM: Array, at_BM: Array):
    """The laws kept so far, and those by which a round's tokens were decided."""
    if laws_BLV is None:
        return None
    law_BMV = jnp.take_along_axis(sampling.probs(logits_BMV), rows_BM[..., None], axis=1)
    return written(laws_BLV, law_BMV, at_BM)


def written(buffer: Array, values: Array, at_BM: Array) -> Array:
    """Row b's values at the places `at_BM[b]`; what lies past the end is dropped."""
    row_B1 = jnp.arange(at_BM.shape[0])[:, None]
    return buffer.at[row_B1, at_BM].set(values.astype(buffer.dtype), mode="drop")
