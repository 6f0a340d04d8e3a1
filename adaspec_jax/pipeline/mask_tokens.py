"""Which token stands for those that are to be guessed in one pass: one that the text has no use for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.text import Text


def mask_token(asked: int, text: Text, kind: str, *, vocab_size: int, owned: int, specials_first: bool = False) -> int:
    """The mask token: the one that is asked for, or, below 0, the first that the text has no use for.

    UserError where the text has it, or every row of the vocabulary is a token that text may have. `owned`: how many
    rows tokens own. `specials_first`: rows that no token owns come last: for masks whose embedding is the target's own
    and stays as it is, and such a row may be empty.
    """
    if asked >= vocab_size:
        raise UserError(f"config.draft.head: mask is {asked}, and the draft has {vocab_size} vocabulary rows")
    counts_V = _counts(text, vocab_size)
    found = asked if asked >= 0 else next(_unused(text, counts_V, owned, specials_first), None)
    if found is None:
        raise UserError(
            f'each of the {vocab_size} vocabulary rows is a token that text may have, and draft.kind "{kind}" needs '
            "one for masks: name one that yours never has, --config.draft.head=mask=ID, or take models with more rows"
        )
    if counts_V[found] or found in text.ends.ids:
        said = f"the text has it {counts_V[found]:,} times" if counts_V[found] else "text ends with it"
        raise UserError(f"config.draft.head: mask is {found} ({named(found, text)}), and {said}; name another")
    return found


def named(token: int, text: Text) -> str:
    return text.tokenizer.convert_ids_to_tokens(token) if token < len(text.tokenizer) else "a row that no token owns"


def _unused(text: Text, counts_V: np.ndarray, owned: int, specials_first: bool) -> Iterator[int]:
    """Rows that no token owns, and special tokens which no row of the text has: these alone are no ordinary text."""
    if not specials_first:
        yield from range(owned, len(counts_V))
    tokenizer = text.tokenizer
    others = {*text.ends.ids, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    special = sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - others)
    yield from (token for token in special if token < len(counts_V) and not counts_V[token])
    yield from range(owned, len(counts_V))


def _counts(text: Text, vocab_size: int) -> np.ndarray:
    counts_V = np.zeros((vocab_size,), np.int64)
    for row in (*text.train, *text.held_out):
        counts_V += np.bincount(row.tokens, minlength=vocab_size)
    return counts_V
