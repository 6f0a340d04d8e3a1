"""Tokens with the role they played, for a terminal and for the report's view of what was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax

from adaspec_jax import data
from adaspec_jax.devices import processes
from adaspec_jax.training import Batch, Frozen, selection
from adaspec_jax.training.divergences import Divergence, gap


def labelled_tokens(tokenizer, rows: Sequence[data.Encoded]) -> list[list[dict]]:
    """Rows as they are trained on: which tokens are labels, and of a conversation whose words they are."""
    shown = []
    for row in rows:
        kinds = ({"kind": "supervised" if label else "prompt"} for label in row.labels_T)
        texts = ({"text": text} for text in data.pieces(row.tokens.tolist(), tokenizer))
        parts = zip(texts, kinds, _roles(row, len(row.tokens)), strict=True)
        shown.append([text | kind | role for text, kind, role in parts])
    return shown


def in_brackets(tokens: Sequence[dict]) -> str:
    """One row of `labelled_tokens` for a terminal: labels stand between ⟦ and ⟧."""
    text, inside = "", False
    for token in tokens:
        if (token["kind"] == "supervised") != inside:
            inside = not inside
            text += "⟦" if inside else "⟧"
        text += token["text"]
    return text + "⟧" * inside


def _roles(row: data.Encoded, count: int) -> list[dict]:
    """{"role": name} of each token, {} where it is the template's or the row no conversation."""
    if row.roles is None:
        return [{}] * count
    return [{"role": data.chat.ROLES[role]} if role >= 0 else {} for role in row.roles[:count].tolist()]


def selected_tokens(
    tokenizer,
    frozen: Frozen,
    draft,
    batch: Batch,
    encoded: Sequence[data.Encoded],
    *,
    divergence: Divergence,
    fraction: float,
) -> list[list[dict]]:
    """Rows of a training batch with the labels this draft would be trained on now, and their gaps in nats."""
    gap_BT, kept_BT = processes.fetch(_selection(frozen, draft, batch, divergence=divergence, fraction=fraction))
    rows = []
    for b, row in enumerate(labelled_tokens(tokenizer, encoded)):
        for t, token in enumerate(row):
            if token["kind"] == "supervised":
                token["kind"] = "selected" if kept_BT[b, t - 1] else "dropped"
                token["gap"] = float(gap_BT[b, t - 1])
        rows.append(row)
    return rows


@partial(jax.jit, static_argnames=("divergence", "fraction"))
def _selection(frozen: Frozen, draft, batch: Batch, *, divergence, fraction):
    logits = (model(batch.tokens_BT)[0][:, :-1] for model in (draft, frozen.reference, frozen.target))
    gap_BT = gap(divergence, *logits)
    return gap_BT, selection.select_top_fraction(gap_BT, batch.loss_mask_BT[:, 1:], fraction)
