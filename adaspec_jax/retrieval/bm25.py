"""Passages by the words that they share with a question."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from adaspec_jax.errors import UserError


class BM25:
    """A retriever over these passages, in their order: `BM25(passages)("Who was Ada Lovelace?", 10)`.

    BM25 as bm25s has it by default: Lucene's form, k1 = 1.5, b = 0.75, English stop words left out. UserError where
    there are no passages, or no words in them, or where bm25s is not installed.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        if find_spec("bm25s") is None:
            raise UserError("searching a corpus needs bm25s: pip install bm25s")
        import bm25s

        self._passages, self._index = list(passages), bm25s.BM25(backend="numpy")
        words = bm25s.tokenize(self._passages, return_ids=False, show_progress=False)
        if not any(words):
            raise UserError(f"the corpus has {len(self._passages)} passages and no word in them; give another")
        self._index.index(words, show_progress=False)

    def __call__(self, question: str, count: int) -> list[str]:
        """At most `count` passages, the best first; none that shares no word with the question."""
        import bm25s

        words = bm25s.tokenize([question], return_ids=False, show_progress=False)
        if not words[0]:
            return []
        most = min(count, len(self._passages))
        found, scores = self._index.retrieve(words, k=most, show_progress=False, backend_selection="numpy")
        return [self._passages[int(at)] for at, score in zip(found[0], scores[0], strict=True) if score > 0]
