"""Rows of a local file, each one checked: what is wrong is said with file, line and column."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adaspec_jax.errors import UserError, did_you_mean

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[dict], str]:
    """All rows of a file of JSON lines, or of one JSON list (`.json`), and the SHA-256 of its unpacked bytes.

    Every row holds text in each of `columns`. UserError with file, line (or row) and column at the first that does not.
    """
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: not a data file; its name must end in one of {', '.join(SUFFIXES)}")
    digest = hashlib.sha256()
    is_list = path.name.removesuffix(".gz").endswith(".json")
    parse = _list_rows if is_list else _line_rows
    rows = []
    for where, row in parse(path, digest):
        check_row(row, columns, where)
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows, digest.hexdigest()


def check_row(row: object, columns: Sequence[str], where: str) -> None:
    """UserError unless `row` is an object that holds text which is not blank in each of `columns`."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, not {_kind(row)}")
    for column in columns:
        if column not in row:
            raise UserError(f'{where}: no column "{column}"{did_you_mean(column, row)}')
        value = row[column]
        if not isinstance(value, str):
            raise UserError(f'{where}: column "{column}" must be text, not {_kind(value)}')
        if not value.strip():
            raise UserError(f'{where}: column "{column}" is empty')
        # JSON may spell half of a surrogate pair, which no tokenizer and no file can hold.
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f'{where}: column "{column}" holds half of a surrogate pair, which is not text')


def _line_rows(path: Path, digest) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(_lines(path), 1):
        digest.update(line)
        where = f"{path} line {number}"
        text = _text(line.removeprefix(_BOM) if number == 1 else line, where)
        if text.strip():
            yield where, _json(text, where)


def _list_rows(path: Path, digest) -> Iterator[tuple[str, object]]:
    content = b"".join(_lines(path))
    digest.update(content)
    rows = _json(_text(content.removeprefix(_BOM), str(path)), str(path)) if content.strip() else []
    if not isinstance(rows, list):
        raise UserError(f"{path}: a .json file must hold one list of rows, not {_kind(rows)}; or name it .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"{path} row {number}", row


def _lines(path: Path) -> Iterator[bytes]:
    """Lines as bytes, unpacked where the content (whatever the name) is gzip."""
    number = 0
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as stream:
            for line in stream:
                number += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} line {number + 1}: the gzip file is cut short or damaged; copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start + 1} of it); save the file as UTF-8") from error


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} character {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON that can be read ({type(error).__name__})") from error


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
