"""Log-probabilities of a generation as rows of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adaspec_jax import data
from adaspec_jax.decoding import Generation

_BEFORE = 16  # tokens that may change how the next one is shown


def of_row(made: Generation, row: int, start: int, tokenizer) -> Iterator[dict[str, Any]]:
    """{"id", "token", "logprob", "top": [{"id", "token", "logprob"}, ...]} of a row's tokens from column `start` on.

    "token" is what it adds to the text there. `made` is on the host and has `logprobs`, in nats, which are None in
    place of minus infinity.
    """
    kept, tokens = made.logprobs, made.tokens_BS[row, : made.lengths_B[row]].tolist()

    def entry(at: int, token: int, logprob: float) -> dict[str, Any]:
        said = data.continuation(tokens[max(at - _BEFORE, 0) : at], [token], tokenizer)
        return {"id": token, "token": said, "logprob": logprob if logprob > -float("inf") else None}

    for at in range(start, len(tokens)):
        likely = zip(kept.top_BSK[row, at].tolist(), kept.of_top_BSK[row, at].tolist(), strict=True)
        this = entry(at, tokens[at], float(kept.chosen_BS[row, at]))
        yield this | {"top": [entry(at, *each) for each in likely]}
