"""Tokens with the role they played, for the report's two coloured texts."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from adaspec_jax import data
from adaspec_jax.decoding import GUESS, PROMPT, TARGET, Generation
from adaspec_jax.devices import processes
from adaspec_jax.training import Batch, Frozen, selection
from adaspec_jax.training.divergences import Divergence, gap

_KINDS = {PROMPT: "prompt", GUESS: "accepted", TARGET: "target"}


def decoded_tokens(tokenizer, generation: Generation, row: int, prompt_length: int) -> list[dict]:
    """One generated row: prompt, accepted guesses, the target's own tokens, and refused guesses before those."""
    tokens = generation.tokens_BS[row, : int(generation.lengths_B[row])].tolist()
    shown = []
    for at, text in enumerate(data.pieces(tokens, tokenizer)):
        refused = int(generation.rejected_BS[row, at])
        if refused >= 0:
            shown.append({"text": data.continuation(tokens[:at], [refused], tokenizer), "kind": "rejected"})
        kind = "prompt" if at < prompt_length else _KINDS[int(generation.origin_BS[row, at])]
        shown.append({"text": text, "kind": kind})
    return shown


def selected_tokens(
    tokenizer, frozen: Frozen, draft, batch: Batch, *, divergence: Divergence, fraction: float
) -> list[list[dict]]:
    """Rows of a training batch with the labels this draft would be trained on now, and their gaps in nats."""
    gap_BT, kept_BT = processes.fetch(_selection(frozen, draft, batch, divergence=divergence, fraction=fraction))
    rows = []
    for b, tokens_T in enumerate(batch.tokens_BT):
        length = int(np.max(np.nonzero(batch.loss_mask_BT[b])[0])) + 1
        row = []
        for t, text in enumerate(data.pieces(tokens_T[:length].tolist(), tokenizer)):
            if not batch.loss_mask_BT[b, t]:
                row.append({"text": text, "kind": "prompt", "gap": None})
                continue
            kind = "selected" if kept_BT[b, t - 1] else "dropped"
            row.append({"text": text, "kind": kind, "gap": float(gap_BT[b, t - 1])})
        rows.append(row)
    return rows


@partial(jax.jit, static_argnames=("divergence", "fraction"))
def _selection(frozen: Frozen, draft, batch: Batch, *, divergence, fraction):
    logits = (model(batch.tokens_BT)[0][:, :-1] for model in (draft, frozen.reference, frozen.target))
    gap_BT = gap(divergence, *logits)
    return gap_BT, selection.select_top_fraction(gap_BT, batch.loss_mask_BT[:, 1:], fraction)
