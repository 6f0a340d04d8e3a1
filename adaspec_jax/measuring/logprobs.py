"""Log-probabilities of a generation as rows of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adaspec_jax import data
from adaspec_jax.decoding import Generation


def of_row(made: Generation, row: int, start: int, tokenizer) -> Iterator[dict[str, Any]]:
    """{"id", "token", "logprob", "top": [{"id", "token", "logprob"}, ...]} of a row's tokens from column `start` on.

    `made` is on the host and has `logprobs`, in nats, which are None in place of minus infinity.
    """

    def entry(token: int, logprob: float) -> dict[str, Any]:
        said = data.text_of([token], tokenizer)
        return {"id": token, "token": said, "logprob": logprob if logprob > -float("inf") else None}

    kept = made.logprobs
    for at in range(start, int(made.lengths_B[row])):
        likely = zip(kept.top_BSK[row, at].tolist(), kept.of_top_BSK[row, at].tolist(), strict=True)
        this = entry(int(made.tokens_BS[row, at]), float(kept.chosen_BS[row, at]))
        yield this | {"top": [entry(token, logprob) for token, logprob in likely]}
