"""The order of a text's suffixes."""

from __future__ import annotations

import numpy as np


def suffix_array(tokens_T: np.ndarray, *, depth: int) -> np.ndarray:
    """int32 [T]: where the suffixes begin, ordered by their first `depth` tokens at least, equal ones by place.

    By doubling the prefix that is ordered (Manber and Myers 1990): a sort of T numbers for each doubling. The end of
    the text is below every token.
    """
    size, width = len(tokens_T), 1
    rank_T = np.unique(tokens_T, return_inverse=True)[1].astype(np.int64).reshape(-1)
    order_T = np.argsort(rank_T, kind="stable")
    while width < min(depth, size) and rank_T.max() < size - 1:  # until all differ
        second_T = np.zeros(size, np.int64)
        second_T[:-width] = rank_T[width:] + 1
        key_T = rank_T * (size + 1) + second_T
        order_T = np.argsort(key_T, kind="stable")
        rank_T[order_T] = np.cumsum(np.diff(key_T[order_T], prepend=key_T[order_T[0]]) != 0)
        width *= 2
    return order_T.astype(np.int32)
