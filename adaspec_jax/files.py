"""Files and folders that appear whole or not at all, journals, JSON that says which file is wrong, and SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from adaspec_jax.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """An empty file beside `path` that takes its place when the block succeeds, and is gone where it fails.

    No other writer has its name, in any process of any host that shares the directory: of several, the last one's file
    stands, whole. A kill leaves the old file, and one named `.NAME.*.tmp`. Readable by whoever may read ordinary files.
    What is no file, such as /dev/null or a pipe, is written to and not replaced.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)  # in the same directory: os.replace must not cross devices
    try:
        with temporary.open("xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors makes its files the owner's alone
            temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def making_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder beside `path` that becomes it when the block succeeds, unless another writer's has by then."""
    path = Path(path)
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """`path` holds either its old content or all of `text` in UTF-8, after a kill and after a power cut."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(text.encode("utf-8", "replace"))  # a token may hold half a surrogate pair
        file.flush()
        if temporary.is_file():  # a pipe has no disk to reach
            os.fsync(file.fileno())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`write_text` of the value, its keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike, *, mend: str = "copy or download it again") -> dict[str, Any]:
    """The object that a JSON file holds; UserError with the file, what is wrong and `mend` where it holds none."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {mend}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {mend}")
    return value


class Journal:
    """Rows of JSON in a file, a line each, for the same command to go on from; the first line says whose they are."""

    def __init__(self, path: str | os.PathLike, about: Mapping[str, Any], *, what: str, mend: str) -> None:
        """Reads what is there, but for a last row that was cut short; UserError where that is not of this `about`.

        `what` the rows are of and how to `mend` it are words of that error.
        """
        self._path, self.rows = Path(path), []
        about = json.loads(json.dumps(about))
        if not self._path.exists():
            write_text(self._path, _line(about))
            return
        said = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if len(said) > 1 and not said[-1].endswith("\n") and not _is_json(said[-1]):
            said.pop()
        try:
            first, *self.rows = [dict(json.loads(line)) for line in said] or [{}]
        except (ValueError, TypeError):
            raise UserError(f"{path} is no journal of a {what}; {mend}") from None
        # What the first line does not say was not asked when the journal was begun.
        differs = sorted(name for name in about if said and first.get(name, about[name]) != about[name])
        if differs or not set(first) & set(about):
            raise UserError(f"{path} is of another {what} ({', '.join(differs) or 'everything'}); {mend}")
        write_text(self._path, "".join(map(_line, [first, *self.rows])))

    def add(self, row: Mapping[str, Any]) -> None:
        """The row is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(dict(row))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def open_unpacked(path: str | os.PathLike) -> BinaryIO:
    """The file's content, unpacked where it is gzip, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path) if packed else open(path, "rb")


def sha256(path: str | os.PathLike, *, unpacked: bool = False) -> str:
    """Of the file's bytes, or of its content as `open_unpacked` gives it (hex)."""
    with open_unpacked(path) if unpacked else open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(directory: str | os.PathLike) -> str:
    """Of all safetensors files in a directory, by their names' order (hex)."""
    digest = hashlib.sha256()
    for file in sorted(Path(directory).glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
