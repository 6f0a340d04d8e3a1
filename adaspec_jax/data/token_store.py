"""Arrays with one entry per supervised token, or per token, on disk beside the rows they belong to.

A store is a directory of `.npy` files, `COLUMN-00000.npy` and so on, each with one column of one block of rows: the
entries [tokens, ...] of its rows one after another. Rows are put into blocks by length, so that a block can be computed
with little padding. `store.json` says what the entries were computed from. A file appears whole or not at all, and ends
with a checksum; one that is missing, cut short or damaged is written again, one of other origin is refused.
"""

from __future__ import annotations

import copy
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from adaspec_jax import files
from adaspec_jax.data.batches import bucket_length, pad
from adaspec_jax.data.encoded import Encoded
from adaspec_jax.errors import UserError

ROWS_PER_BLOCK = 128
_MANIFEST = "store.json"


class TokenStore:
    """Columns of per-token arrays for `rows`; the entry of a label lies at the position that predicts it."""

    def __init__(self, directory: str | Path, rows: Sequence[Encoded], *, rows_per_block: int = ROWS_PER_BLOCK) -> None:
        self.path, self._rows = Path(directory), rows
        by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].tokens), i))
        self.blocks = [by_length[i : i + rows_per_block] for i in range(0, len(rows), rows_per_block)]
        # {every token or not: {row: (block, first entry, one past its last)}}
        self._place = {every: self._places(every) for every in (False, True)}
        self._columns: dict[str, _Column] = {}
        self._asked: dict[tuple, _Column] = {}

    def _places(self, every_token: bool) -> dict[int, tuple[int, int, int]]:
        places = {}
        for number, block in enumerate(self.blocks):
            end = 0
            for i in block:
                start, end = end, end + self._entries_of(i, every_token)
                places[i] = (number, start, end)
        return places

    def _entries_of(self, row: int, every_token: bool) -> int:
        return len(self._rows[row].tokens) if every_token else self._rows[row].num_labels

    @property
    def columns(self) -> tuple[str, ...]:
        """Those begun."""
        return tuple(self._columns)

    @property
    def of_every_token(self) -> frozenset[str]:
        """Those with an entry for every token of a row."""
        return frozenset(name for name, column in self._columns.items() if column.every_token)

    def without(self, column: str) -> TokenStore:
        """The same store as if this column had not been begun."""
        other = copy.copy(self)
        other._columns = {name: value for name, value in self._columns.items() if name != column}
        return other

    @property
    def entries(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """{column: (shape of an entry, its type)} of what `padded` gives."""
        return {name: (column.shape, column.dtype) for name, column in self._columns.items() if not column.unwritten}

    def holds(self, column: str) -> bool:
        """Whether the directory has it, as far as it is written."""
        return column in _manifest(self.path)

    def begin(
        self,
        column: str,
        *,
        shape: tuple[int, ...],
        dtype: Any,
        origin: dict[str, str],
        every_token: bool = False,
        directory: Path | None = None,
    ) -> list[int]:
        """Declares a column and returns the numbers of the blocks that are still to be written, longest rows first.

        With `every_token` its entries are of all tokens of a row, else of those that predict labels. `origin` names
        what its entries follow from ({"target weights": sha256, ...}). `directory` is where it lies, if not beside the
        others. UserError where the directory holds this column from another origin.
        """
        path, dtype = directory or self.path, np.dtype(dtype)
        ours = {"origin": origin, "shape": list(shape), "dtype": dtype.name}
        ours |= {"every_token": True} if every_token else {}
        manifest = _manifest(path)
        if (theirs := manifest.get(column)) is not None and theirs != ours:
            raise UserError(
                f"{path} holds {column} computed from other {_differing(theirs, ours)}; delete {path} to have it "
                "written again, or use another --workdir or --config.teacher_store"
            )
        if theirs is None:
            files.write_json(path / _MANIFEST, manifest | {column: ours})
        begun = self._columns[column] = self._column(path, column, shape, dtype, every_token)
        begun.unwritten = self._not_whole(begun)
        return sorted(begun.unwritten, reverse=True)

    def begun_elsewhere(
        self,
        column: str,
        unwritten: Sequence[int],
        *,
        shape: tuple[int, ...],
        dtype: Any,
        every_token: bool = False,
        directory: Path | None = None,
    ) -> None:
        """Another process that shares the directory has begun this column, and found these blocks unwritten."""
        path = directory or self.path
        begun = self._columns[column] = self._column(path, column, shape, dtype, every_token)
        begun.unwritten = set(unwritten)

    def bytes_of(self, *, shape: tuple[int, ...], dtype: Any, every_token: bool = False) -> int:
        """What a whole column takes."""
        return sum(self._bytes_of(number, shape, dtype, every_token) for number in range(len(self.blocks)))

    def bytes_missing(self, column: str, *, shape: tuple[int, ...], dtype: Any, every_token: bool = False) -> int:
        """What of a column is still to be written takes."""
        missing = self._not_whole(self._column(self.path, column, shape, dtype, every_token))
        return sum(self._bytes_of(number, shape, dtype, every_token) for number in missing)

    def _column(self, path: Path, name: str, shape: tuple[int, ...], dtype: Any, every_token: bool) -> _Column:
        """The same for the same words, so that each block is held against its checksum once."""
        asked = path, name, tuple(shape), np.dtype(dtype), every_token
        return self._asked.setdefault(asked, _Column(*asked))

    def _bytes_of(self, block: int, shape: tuple[int, ...], dtype: Any, every_token: bool) -> int:
        return self._entries_in(block, every_token) * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize

    def check_room(self, needed: int, what: str) -> None:
        """UserError, with the size, where the disk has not `needed` bytes left."""
        free = free_bytes(self.path)
        if free < needed:
            raise UserError(
                f"{what} takes {size_in_words(needed)} and {self.path} has {size_in_words(free)} free; free some disk, "
                'put --workdir or --config.teacher_store elsewhere, or set --config.teacher="recompute"'
            )

    def write(self, column: str, number: int, entries: list[np.ndarray]) -> None:
        """One block's entries, one array [tokens, ...] per row, in the block's order of rows."""
        self._columns[column].write(number, np.concatenate(entries))

    def written_elsewhere(self, column: str, number: int) -> None:
        """Another process that shares the directory has written this block."""
        self._columns[column].unwritten.discard(number)

    def read(self, column: str, row: int) -> np.ndarray:
        """[tokens, ...] of one row, not copied from the file until it is used."""
        number, start, end = self._place[self._columns[column].every_token][row]
        return self._columns[column].block(number)[start:end]

    def padded(self, rows: Sequence[int], length: int) -> dict[str, np.ndarray]:
        """{column: [B, length, ...]} of all columns that are whole, zero where no label is predicted."""
        columns = [column for column in self._columns.values() if not column.unwritten]
        return {column.name: self._padded(column, rows, length) for column in columns}

    def _padded(self, column: _Column, rows: Sequence[int], length: int) -> np.ndarray:
        dense = np.zeros((len(rows), length, *column.shape), column.dtype)
        for b, i in enumerate(rows):
            at = slice(len(self._rows[i].tokens)) if column.every_token else self._rows[i].predicting
            dense[b, at] = self.read(column.name, i)
        return dense

    def _not_whole(self, column: _Column) -> set[int]:
        """The blocks of which there is no file with all entries."""
        return {number for number in range(len(self.blocks)) if not self._is_whole(column, number)}

    def _is_whole(self, column: _Column, number: int) -> bool:
        try:
            return len(column.block(number)) == self._entries_in(number, column.every_token)
        except (OSError, ValueError, EOFError):
            return False

    def _entries_in(self, block: int, every_token: bool) -> int:
        return self._place[every_token][self.blocks[block][-1]][2]


def _manifest(path: Path) -> dict:
    file = path / _MANIFEST
    return files.read_json(file, mend=f"delete {path} to have it written again") if file.is_file() else {}


def _differing(theirs: dict, ours: dict) -> str:
    """In what two columns of a name differ: what their entries follow from, their type, their shape."""
    kept, origin = theirs.get("origin", {}), ours["origin"]
    names = [name for name in origin if kept.get(name) != origin[name]]
    if theirs.get("dtype") != ours["dtype"]:
        names.append(f"type ({theirs.get('dtype')} there, {ours['dtype']} here)")
    return ", ".join(names or ["shape"])


class _Column:
    """The files of one column. bfloat16, which `.npy` has no name for, lies there as uint16."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, every_token: bool) -> None:
        self.path, self.name, self.shape, self.dtype, self.every_token = path, name, shape, dtype, every_token
        self.unwritten: set[int] = set()
        self._open: dict[int, np.ndarray] = {}

    def block(self, number: int) -> np.ndarray:
        if number not in self._open:
            file = self._file(number)
            entries = np.load(file, mmap_mode="r", allow_pickle=False)
            if entries.shape[1:] != self.shape or entries.dtype != self._on_disk:
                raise ValueError(f"{file} holds {entries.dtype} {entries.shape}")
            with file.open("rb") as opened:
                opened.seek(entries.offset + entries.nbytes)
                if opened.read() != _checksum(entries):
                    raise ValueError(f"{file} is damaged")
            self._open[number] = entries.view(self.dtype)
        return self._open[number]

    def write(self, number: int, entries: np.ndarray) -> None:
        self._open.pop(number, None)
        with files.replacing(self._file(number)) as temporary, temporary.open("wb") as file:
            entries = np.ascontiguousarray(entries.astype(self.dtype)).view(self._on_disk)
            np.save(file, entries, allow_pickle=False)
            file.write(_checksum(entries))
        self.unwritten.discard(number)

    @property
    def _on_disk(self) -> np.dtype:
        return np.dtype(np.uint16) if self.dtype == ml_dtypes.bfloat16 else self.dtype

    def _file(self, number: int) -> Path:
        return self.path / f"{self.name}-{number:05d}.npy"


def _checksum(entries: np.ndarray) -> bytes:
    """What follows the entries in their file."""
    return b"crc32 " + zlib.crc32(np.ravel(entries).view(np.uint8).data).to_bytes(4, "little")


def size_in_words(size: int) -> str:
    """ "3.70 GB" or "12 MB"."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def free_bytes(path: Path) -> int:
    """Of the disk that a path, or the first of its parents that exists, lies on."""
    return shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.exists())).free


def row_batches(
    rows: Sequence[Encoded],
    block: Sequence[int],
    batch_size: int,
    *,
    buckets: Sequence[int],
    pad_id: int,
    beside: TokenStore | None = None,
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """(row numbers, padded batch) over a block, with what the store `beside` holds of its rows.

    The last batch is filled up by repeating its last row.
    """
    for start in range(0, len(block), batch_size):
        numbers = list(block[start : start + batch_size])
        filled = numbers + numbers[-1:] * (batch_size - len(numbers))
        length = bucket_length(max(len(rows[i].tokens) for i in numbers), buckets)
        batch = pad([rows[i] for i in filled], length, pad_id)
        yield numbers, batch | (beside.padded(filled, length) if beside else {})
