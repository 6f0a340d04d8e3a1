"""Rows of a local file, each one checked: what is wrong is said with file, line and column."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adaspec_jax.data.faults import read_each
from adaspec_jax.errors import UserError, did_you_mean, first_line
from adaspec_jax.files import open_unpacked, ordinary, parsed
from adaspec_jax.places import near_place

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
NO_NAMES: Mapping[str, str] = MappingProxyType({})
_BOM = b"\xef\xbb\xbf"


class Row(dict):
    """A row that knows where it stands, as in "FILE line 3"."""

    def __init__(self, values: Mapping, where: str) -> None:
        super().__init__(values)
        self.where = where


def read_rows(
    path: Path, columns: Sequence[str], *, may_be_empty: Sequence[str] = (), renamed: Mapping[str, str] = NO_NAMES
) -> tuple[list[Row], str]:
    """All rows of a file of JSON lines, of one JSON list (`.json`) or of `.parquet`, and its unpacked bytes' SHA-256.

    Every row holds text in each of `columns`, under that name or one that `renamed` translates to it; those in
    `may_be_empty` may hold none, or be absent. Where one column is all, a row may be its bare text. UserError with
    file, line (or row) and column of the first that does not, and the lines of all that do not.
    """
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: not a data file; its name must end in one of {', '.join(SUFFIXES)}")
    digest = hashlib.sha256()
    kind = Path(path.name.removesuffix(".gz")).suffix
    parse = {".json": _list_rows, ".parquet": _parquet_rows}.get(kind, _line_rows)

    def read(found: tuple[str, object]) -> Row:
        where, row = found
        if isinstance(row, UserError):
            raise row
        return checked_row(row, columns, where, may_be_empty=may_be_empty, renamed=renamed)

    rows = read_each(parse(path, digest), read, where=lambda found: found[0])
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows, digest.hexdigest()


def checked_row(
    row: object,
    columns: Sequence[str],
    where: str,
    *,
    may_be_empty: Sequence[str] = (),
    renamed: Mapping[str, str] = NO_NAMES,
) -> Row:
    """The row under our column names; UserError unless it is an object with text in `columns`, as `read_rows` says."""
    if isinstance(row, str) and len(columns) == 1:
        row = {columns[0]: row}
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, not {_kind(row)}")
    row = {ours if (ours := renamed.get(name, name)) not in row else name: value for name, value in row.items()}
    for column in columns:
        optional = column in may_be_empty
        if column not in row:
            if not optional:
                raise UserError(
                    f'{where}: no column "{column}"{_of_conversations(row) or did_you_mean(column, map(str, row))}'
                )
            row[column] = ""
        value = row[column]
        if not isinstance(value, str):
            raise UserError(f'{where}: column "{column}" must be text, not {_kind(value)}')
        if not value.strip() and not optional:
            raise UserError(f'{where}: column "{column}" is empty')
        # JSON may spell half of a surrogate pair, which no tokenizer and no file can hold.
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f'{where}: column "{column}" holds half of a surrogate pair, which is not text')
    return Row(row, where)


def parse_rows(rows: str | None) -> tuple[int | None, int | None]:
    """(first, one past the last) of "0:800", None where it is open; UserError where it is no slice."""
    if rows is None:
        return None, None
    match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", rows)
    if not match:
        raise UserError(f'rows="{rows}" is not a slice; write "FIRST:LAST", as in "0:800"')
    first, last = (int(bound) if bound else None for bound in match.groups())
    return first, last


def _of_conversations(row: Mapping) -> str:
    """What to say to whoever takes conversations for columns."""
    forms = [f'"{name}"' for name in ("messages", "conversations") if isinstance(row.get(name), list)]
    return f"; the row has {forms[0]}: the task chat reads conversations (--config=chat, --task chat)" if forms else ""


def _line_rows(path: Path, digest: Any) -> Iterator[tuple[str, object]]:
    """Where a line stands and what it says; the UserError where that cannot be read."""
    for number, line in enumerate(_lines(path), 1):
        digest.update(line)
        where = f"{path} line {number}"
        try:
            text = _text(line.removeprefix(_BOM) if number == 1 else line, where)
            found = _json(text, where) if text.strip() else None
        except UserError as fault:
            yield where, fault
            continue
        if text.strip():
            yield where, found


def _list_rows(path: Path, digest: Any) -> Iterator[tuple[str, object]]:
    content = b"".join(_lines(path))
    digest.update(content)
    rows = _json(_text(content.removeprefix(_BOM), str(path)), str(path)) if content.strip() else []
    if not isinstance(rows, list):
        raise UserError(f"{path}: a .json file must hold one list of rows, not {_kind(rows)}; or name it .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"{path} row {number}", row


def _parquet_rows(path: Path, digest: Any) -> Iterator[tuple[str, object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: .parquet is read by pyarrow, which is not installed (pip install pyarrow)") from None
    try:
        content = ordinary(path).read_bytes()
        rows = parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}){near_place(path)}") from error
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no Parquet file, or a damaged one ({str(error).splitlines()[0]})") from error
    digest.update(content)
    for number, row in enumerate(rows, 1):
        yield f"{path} row {number}", row


def _lines(path: Path) -> Iterator[bytes]:
    """Lines as bytes, unpacked where the content (whatever the name) is gzip."""
    number = 0
    try:
        with open_unpacked(path) as stream:
            for line in stream:
                number += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} line {number + 1}: the gzip file is cut short or damaged; copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}){near_place(path)}") from error


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start + 1} of it); save the file as UTF-8") from error


def _json(text: str, where: str) -> object:
    try:
        return parsed(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} character {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        reason = error.msg.removesuffix(" at")
        raise UserError(f"{where}: not JSON ({reason} at {place}); mend it, or take it out") from error
    except ValueError as error:
        raise UserError(f"{where}: not JSON that can be read ({first_line(error)})") from error


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
