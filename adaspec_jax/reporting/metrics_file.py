"""metrics.jsonl: one line per logged step, the same after any number of kills and resumes as without them."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from pathlib import Path
from typing import Any

from adaspec_jax.errors import UserError
from adaspec_jax.files import parsed, settle, write_text
from adaspec_jax.reporting.report import plain


class MetricsFile:
    """Appends `{"step": ..., ...}` lines to `path`, each safe from kill -9 once `write` returns.

    `resume_at` is the number of steps already done: entries after it, and a line torn by a kill, are removed, so that
    the resumed run's file equals an uninterrupted one's; 0 starts an empty file. What is kept must have the `checksum`
    that `settle` gave then, where one is given (else UserError). `told` is the last step that was there before.
    """

    def __init__(self, path: str | os.PathLike, *, resume_at: int = 0, checksum: int | None = None) -> None:
        self.path = Path(path)
        old = self.path.read_bytes() if self.path.exists() else b""
        self.told = max((entry["step"] for entry in map(_parse, old.split(b"\n")) if entry), default=0)
        kept = "".join(line + "\n" for line in _lines_through(old, resume_at, self.path))
        if checksum is not None and zlib.crc32(kept.encode()) != checksum:
            raise UserError(
                f"{self.path} is damaged: it is not what was there at step {resume_at}, which a checkpoint is at; copy "
                f"it back, or delete {self.path.parent} to start that stage again"
            )
        if kept.encode() != old:
            write_text(self.path, kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._sum = zlib.crc32(kept.encode())
        self._file = open(self.path, "a", encoding="utf-8")
        settle(self.path.parent)  # the file's name, which a checkpoint rests on

    def write(self, step: int, **metrics: Any) -> None:
        """Appends one line; NumPy and JAX scalars become numbers, a NaN or infinity becomes null."""
        entry = {"step": int(step), **plain(metrics, where="metrics", nonfinite_to_null=True)}
        line = json.dumps(entry, allow_nan=False) + "\n"
        self._sum = zlib.crc32(line.encode(), self._sum)
        self._file.write(line)
        self._file.flush()  # into the kernel: only a power cut could lose it now

    def settle(self) -> int:
        """What was written is on the disk when this returns: a checksum of it."""
        os.fsync(self._file.fileno())
        return self._sum

    def close(self) -> None:
        self.settle()
        self._file.close()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The entries of a metrics file in order, [] without a file; skips a torn last line, ValueError for any other."""
    path = Path(path)
    lines = path.read_bytes().splitlines() if path.exists() else []
    entries = [_parse(line) for line in lines]
    for number, entry in enumerate(entries[:-1], start=1):
        if entry is None:
            raise ValueError(f"{path} line {number} is not a metrics entry")
    return [entry for entry in entries if entry is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = parsed(line)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError: both are what a torn line raises
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


def _lines_through(content: bytes, step: int, path: Path) -> list[str]:
    """The lines of steps 1 to `step`, as written; UserError where one is damaged, missing or there twice."""
    entries = [(_parse(line), line) for line in content.split(b"\n")] if step > 0 else []
    kept = [(entry["step"], line.decode()) for entry, line in entries if entry is not None and entry["step"] <= step]
    for expected, found in itertools.zip_longest(range(1, step + 1), (number for number, _ in kept)):
        if found != expected:
            raise UserError(
                f"{path} has no entry of step {expected or found} where it belongs, and a checkpoint is at step "
                f"{step}: copy it back, or delete {path.parent} to start that stage again"
            )
    return [line for _, line in kept]
