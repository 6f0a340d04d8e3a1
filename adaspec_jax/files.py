"""Files and folders that appear whole or not at all, journals, JSON that says which file is wrong, and SHA-256."""

from __future__ import annotations

import errno
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from adaspec_jax.errors import UserError

_BEGINNING = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # as `_beside` names them
_GZIP_MAGIC = b"\x1f\x8b"
SEAL = "checksum"  # key
_LARGEST = 2**28  # bytes of a JSON file that is read at once


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """An empty file beside `path` that takes its place when the block succeeds, and is gone where it fails.

    No other writer has its name, in any process of any host that shares the directory: of several, the last one's file
    stands, whole, and outlasts a power cut. A kill leaves the old file, and one named `.NAME.*.tmp`. Readable by whom
    ordinary files are. What is no file, such as /dev/null or a pipe, is written to and not replaced.
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
        settle(temporary)
        os.replace(temporary, path)
        settle(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def making_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder beside `path` that becomes it when the block succeeds, unless another writer's has by then."""
    path = Path(path)
    with scratch_folder(path) as temporary:
        yield temporary
        settle_below(temporary)
        try:
            temporary.rename(path)
            settle(path.parent)
        except OSError:
            if not path.is_dir():
                raise


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder beside `path` that is gone after the block; `clear_beginnings` finds what a kill leaves."""
    temporary = _beside(Path(path))
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def settle_below(folder: Path) -> None:
    """All that a folder holds, files and names, is on the disk when this returns."""
    for inside in [*folder.rglob("*"), folder]:
        settle(inside)


def settle(path: Path) -> None:
    """What was written of a file, or which names a folder has, is on the disk when this returns."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not read, and any on Windows
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # where a file system has no such thing
            raise
    finally:
        os.close(opened)


def clear_beginnings(directory: str | os.PathLike) -> None:
    """Takes away what killed writers began below a folder that nobody else writes to."""
    _clear(Path(directory).rglob(".*.tmp"))


def clear_beginnings_of(path: Path) -> None:
    """The same of one file or folder, which nobody else writes."""
    _clear(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def _clear(found: Iterator[Path]) -> None:
    for path in [path for path in found if _BEGINNING.fullmatch(path.name)]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """`path` holds either its old content or all of `text` in UTF-8, after a kill and after a power cut."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(text.encode("utf-8", "replace"))  # a token may hold half a surrogate pair


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`write_text` of the value, its keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike, *, mend: str = "copy or download it again") -> dict[str, Any]:
    """The object that a JSON file holds; UserError with the file, what is wrong and `mend` where it holds none."""
    try:
        file = ordinary(path)
        if (size := file.stat().st_size) > _LARGEST:
            raise UserError(f"{path} has {size:,} bytes, which no such file has; {mend}")
        value = parsed(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {mend}") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {mend}")
    return value


def write_sealed(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """`write_json` of the value, which JSON holds as it is, with a checksum that `read_sealed` asks for."""
    write_json(path, {**value, SEAL: _seal(value)})


def read_sealed(path: str | os.PathLike, *, mend: str) -> dict[str, Any]:
    """What `write_sealed` wrote; UserError where that is damaged. A file without a checksum is taken as it is."""
    value = read_json(path, mend=mend)
    if SEAL in value and value[SEAL] != _seal(value):
        raise UserError(f"{path} is damaged: its checksum is not that of what was written; {mend}")
    return value


def write_packed(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """The value as `write_sealed` would write it, packed by gzip; equal values, equal bytes."""
    text = json.dumps({**value, SEAL: _seal(value)}, separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode("utf-8", "replace"), mtime=0))


def read_packed(path: str | os.PathLike, *, mend: str) -> dict[str, Any]:
    """What `write_packed` wrote; UserError where that is damaged, or unpacks to more than any such file."""
    try:
        with open_unpacked(path) as file:
            packed = file.read(_LARGEST + 1)
        if len(packed) > _LARGEST:
            raise ValueError(f"more than {_LARGEST:,} bytes")
        value = parsed(packed)
        if not isinstance(value, dict) or value.pop(SEAL, None) != _seal(value):
            raise ValueError("its checksum is not that of what was written")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is damaged or cannot be read ({error}); {mend}") from None
    return value


def _seal(value: Mapping[str, Any]) -> int:
    others = {key: item for key, item in value.items() if key != SEAL}
    return zlib.crc32(json.dumps(others, sort_keys=True).encode())


def parsed(text: str | bytes) -> Any:
    """What JSON says; ValueError where it is none, and where it is nested deeper than Python reads it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep to be read") from None


def ordinary(path: str | os.PathLike) -> Path:
    """The path; UserError for a pipe, a device and the like, which end only once, late or never when they are read."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no ordinary file, and it is read more than once; copy it into one first")
    return path


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
        said = ordinary(self._path).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if len(said) > 1 and not said[-1].endswith("\n") and not _is_json(said[-1]):
            said.pop()
        try:
            first, *self.rows = [dict(parsed(line)) for line in said] or [{}]
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
        parsed(text)
    except ValueError:
        return False
    return True


def open_unpacked(path: str | os.PathLike) -> BinaryIO:
    """The file's content, unpacked where it is gzip, whatever its name."""
    with ordinary(path).open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path) if packed else open(path, "rb"))


def sha256(path: str | os.PathLike, *, unpacked: bool = False) -> str:
    """Of the file's bytes, or of its content as `open_unpacked` gives it (hex)."""
    with open_unpacked(path) if unpacked else open(path, "rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def weights_sha256(directory: str | os.PathLike) -> str:
    """Of all safetensors files in a directory, by their names' order (hex)."""
    digest = hashlib.sha256()
    for file in sorted(Path(directory).glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
