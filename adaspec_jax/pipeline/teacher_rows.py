"""The training rows as the frozen models read them, where what they say is stored."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adaspec_jax import data
from adaspec_jax.devices import processes, sharding
from adaspec_jax.pipeline.text import Text
from adaspec_jax.training import Batch


@dataclass(frozen=True)
class Rows:
    """The training rows as batches on the mesh, in the shapes of the reference stage."""

    text: Text
    mesh: sharding.Mesh
    batch_size: int
    buckets: Sequence[int]
    stored: data.TokenStore | None = None  # goes with the rows

    def beside(self, store: data.TokenStore) -> Rows:
        """The same rows with what this store has of them."""
        return replace(self, stored=store)

    def batches(self, block: Sequence[int]) -> Iterator[tuple[list[int], Batch]]:
        """(row numbers, batch) over a block."""
        shapes = {"buckets": self.buckets, "pad_id": self.text.eos_id, "beside": self.stored}
        for numbers, batch in data.row_batches(self.text.rows, block, self.batch_size, **shapes):
            yield numbers, sharding.shard_rows(Batch(**sharding.my_rows(batch, self.mesh)), self.mesh)

    def entries(
        self, block: Sequence[int], values: Callable, *, every_token: Container[str] = ()
    ) -> dict[str, list[np.ndarray]]:
        """{name: [entries [tokens, ...] of each row]} of `values(batch)`, {name: [B, T, ...]}.

        They are those where labels are predicted; of names in `every_token`, at all of a row's tokens.
        """
        found: dict[str, list[np.ndarray]] = {}
        for numbers, batch in self.batches(block):
            for name, array in values(batch).items():
                dense = processes.fetch(array)
                at = self._tokens_of if name in every_token else self.predicting
                found.setdefault(name, []).extend(dense[b][at(i)] for b, i in enumerate(numbers))
        return found

    def _tokens_of(self, row: int) -> slice:
        return slice(len(self.text.rows[row].tokens))

    def predicting(self, row: int) -> np.ndarray | slice:
        """The positions that predict a row's labels."""
        return self.text.rows[row].predicting
