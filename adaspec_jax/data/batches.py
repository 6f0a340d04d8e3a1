"""Token rows become right-padded batches of few lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adaspec_jax.data.encoded import Encoded
from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    import grain


def num_steps(num_examples: int, batch_size: int, epochs: float) -> int:
    """How many batches `train_batches` gives: round(epochs * num_examples) rows, the last partial batch dropped."""
    return round(epochs * num_examples) // batch_size


def train_batches(
    encoded: Sequence[Encoded],
    *,
    batch_size: int,
    epochs: float,
    seed: int,
    buckets: Sequence[int],
    pad_id: int,
    length_window: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    beside: Beside | None = None,
) -> grain.DatasetIterator:
    """An iterator of {"tokens_BT" int32, "loss_mask_BT" bool}, with get_state/set_state of a few bytes.

    Where `beside` is given, its arrays for the same rows are in the batch too, read ahead like the rest. Where the rows
    are packs (`packed`), "segments_BT" int32 says which example each token is of, 0 on padding.

    Each epoch visits every row once in an order of its own, and epochs flow into one another, so a batch may hold rows
    of two of them; only the last partial batch of the whole run is dropped (`num_steps` batches in all). With
    `length_window` > 1 the rows of so many batches in a row are regrouped by length, which saves padding, and those
    batches come in an order of their own. `batch_size` is global. T is the smallest bucket that holds the longest row
    of the *global* batch; this process gets its rows [process_index * b, (process_index + 1) * b) with b = batch_size /
    process_count: every process count sees the same global batches. UserError where a row fits no bucket, the batch
    does not divide, or there is not one full batch.
    """
    import grain

    buckets = _checked_buckets(buckets, max((len(row.tokens) for row in encoded), default=0))
    steps = num_steps(len(encoded), batch_size, epochs)
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not divide over {process_count} processes")
    if steps < 1:
        raise UserError(
            f"{epochs:g} epochs of {len(encoded)} examples do not fill one batch of {batch_size}; "
            "lower batch_size or raise epochs"
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"the data seed must lie between 0 and 2**32 - 1, not {seed}")
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)

    lengths = [len(row.tokens) for row in encoded]

    def collate(rows: Sequence[int]) -> dict[str, np.ndarray]:
        length = bucket_length(max(lengths[i] for i in rows), buckets)
        batch = pad([encoded[i] for i in rows[mine]], length, pad_id)
        return batch | (beside.padded(rows[mine], length) if beside else {})

    epochs_begun = math.ceil(steps * batch_size / len(encoded))
    numbers = grain.MapDataset.source(range(len(encoded)))
    shuffled = numbers.seed(seed).shuffle().repeat(epochs_begun)[: steps * batch_size]
    grouped = _ByLength(shuffled, lengths, batch_size, length_window, seed)
    batches = grain.MapDataset.source(grouped).map(collate)
    # Few threads and a short queue: a row is an array in memory, and the accelerator's host has other work.
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))


class Beside(Protocol):
    """Further arrays of the rows, by number: what a `TokenStore` holds."""

    def padded(self, rows: Sequence[int], length: int) -> dict[str, np.ndarray]: ...


class _ByLength:
    """Random access to batches of row numbers, grouped by length within windows of `window` batches."""

    def __init__(self, rows: Sequence[int], lengths: Sequence[int], batch_size: int, window: int, seed: int) -> None:
        if window < 1:
            raise UserError(f"length_window must be at least 1, not {window}")
        self._rows, self._lengths = rows, lengths
        self._size, self._window, self._seed = batch_size, window, seed
        self._held: tuple[int, list[list[int]]] = (-1, [])  # the window asked for last

    def __len__(self) -> int:
        return len(self._rows) // self._size

    def __getitem__(self, step: int) -> list[int]:
        number, place = divmod(step, self._window)
        held, batches = self._held  # read once: grain may ask from several threads
        if held != number:
            batches = self._batches(number)
            self._held = (number, batches)
        return batches[place]

    def _batches(self, number: int) -> list[list[int]]:
        first = number * self._window * self._size
        last = min(first + self._window * self._size, len(self._rows))
        rows = [self._rows[i] for i in range(first, last)]
        if self._window > 1:
            rows.sort(key=self._lengths.__getitem__)
        batches = [rows[i : i + self._size] for i in range(0, len(rows), self._size)]
        if self._window > 1:
            np.random.default_rng([self._seed, number]).shuffle(batches)
        return batches


def prompt_batches(
    encoded: Sequence[Encoded], batch_size: int, *, buckets: Sequence[int], pad_id: int = 0
) -> Iterator[dict[str, np.ndarray | int]]:
    """{"tokens_BT" int32, "lengths_B" int32, "valid" int} in the given order: prompts only, right-padded.

    Every batch has `batch_size` rows; the last is filled up by repeating its last row, and only its first `valid` rows
    count. T is the smallest bucket that holds the batch's longest prompt. UserError where a prompt fits no bucket.
    """
    buckets = _checked_buckets(buckets, max((row.prompt_length for row in encoded), default=0))
    for start in range(0, len(encoded), batch_size):
        prompts = [row.prompt for row in encoded[start : start + batch_size]]
        valid = len(prompts)
        prompts += prompts[-1:] * (batch_size - valid)
        lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens_BT = np.full((batch_size, bucket_length(lengths_B.max(), buckets)), pad_id, np.int32)
        for tokens_T, prompt in zip(tokens_BT, prompts, strict=True):
            tokens_T[: len(prompt)] = prompt
        yield {"tokens_BT": tokens_BT, "lengths_B": lengths_B, "valid": valid}


def bucket_length(longest: int, buckets: Sequence[int]) -> int:
    """The smallest of ascending `buckets` that holds a row of `longest` tokens."""
    return next(bucket for bucket in buckets if bucket >= longest)


def _checked_buckets(buckets: Sequence[int], longest: int) -> tuple[int, ...]:
    buckets = tuple(sorted(set(buckets)))
    if not buckets or buckets[0] < 1:
        raise UserError(f"buckets must be positive lengths, not {buckets}")
    if longest > buckets[-1]:
        raise UserError(f"a row of {longest} tokens fits no bucket of {buckets}; add one, or lower max_length")
    return buckets


def pad(rows: Sequence[Encoded], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """{"tokens_BT" int32, "loss_mask_BT" bool} of right-padded rows; "segments_BT" int32 where they are packs."""
    tokens_BT = np.full((len(rows), length), pad_id, np.int32)
    loss_mask_BT = np.zeros((len(rows), length), bool)
    for b, row in enumerate(rows):
        tokens_BT[b, : len(row.tokens)] = row.tokens
        loss_mask_BT[b, : len(row.tokens)] = row.labels_T
    arrays = {"tokens_BT": tokens_BT, "loss_mask_BT": loss_mask_BT}
    if any(row.segments is not None for row in rows):
        segments_BT = arrays["segments_BT"] = np.zeros((len(rows), length), np.int32)
        for b, row in enumerate(rows):
            segments_BT[b, : len(row.tokens)] = row.segments
    return arrays
