"""What rounds keep of the target's laws: log-probabilities of what was written, and all logits for rounds outside.

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
    path_BN: Array,
    tokens_BM: Array,
    at_BM: Array,
) -> TokenLogprobs | None:
    """`kept`, and what a round commits along its path: token m goes to column `at_BM`.

    `logits`: [B, M, V], before the processors and after them.
    """
    if kept is None or asked is None:
        return None
    scores_BMV, processed_BMV = (each.astype(jnp.float32) for each in logits)
    if asked.processed:
        scores_BMV = processed_BMV if sampling.greedy else sampling.filtered(processed_BMV)
    if asked.top > scores_BMV.shape[-1]:
        raise ValueError(f"logprobs are asked for {asked.top} tokens, and the vocabulary has {scores_BMV.shape[-1]}")
    sum_BM1 = jax.nn.logsumexp(scores_BMV, axis=-1, keepdims=True)
    top_BMK, token_BMK = jax.lax.top_k(scores_BMV, asked.top)
    rows_BM, batch_B1 = _rows(path_BN), jnp.arange(len(path_BN))[:, None]
    chosen_BM = scores_BMV[batch_B1, rows_BM, tokens_BM] - sum_BM1[batch_B1, rows_BM, 0]
    return TokenLogprobs(
        written(kept.chosen_BS, chosen_BM, at_BM),
        written(kept.top_BSK, token_BMK[batch_B1, rows_BM], at_BM),
        written(kept.of_top_BSK, (top_BMK - sum_BM1)[batch_B1, rows_BM], at_BM),
    )


def with_logits(logits_BLV: Array, logits_BMV: Array, path_BN: Array, at_BM: Array) -> Array:
    """The logits kept so far, and those by which a round's tokens were decided."""
    return written(logits_BLV, jnp.take_along_axis(logits_BMV, _rows(path_BN)[..., None], axis=1), at_BM)


def _rows(path_BN: Array) -> Array:
    """By which row of the logits each column of a round was decided: column m after node m - 1 of the path."""
    return jnp.pad(path_BN + 1, ((0, 0), (1, 0)))


def written(buffer: Array, values: Array, at_BM: Array) -> Array:
    """Row b's values at the places `at_BM[b]`; what lies past the end is dropped."""
    row_B1 = jnp.arange(at_BM.shape[0])[:, None]
    return buffer.at[row_B1, at_BM].set(values.astype(buffer.dtype), mode="drop")
