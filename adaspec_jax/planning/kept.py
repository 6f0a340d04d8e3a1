"""What a compiler said of a program, kept by the program's fingerprint: it would say the same again, minutes later."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import files
from adaspec_jax.devices.ahead_of_time import Needed
from adaspec_jax.devices.topologies import Topology

FOLDER = "ADASPEC_CACHE"  # an environment variable


@dataclass(frozen=True)
class Sized:
    """Bytes per device of a compiled program, and what one device sends in a run of it."""

    size: int
    parts: Needed | None = None  # None: it does not fit, or was not compiled
    collectives: float | None = None


class Kept:
    """Answers of this process, and in a folder those of earlier ones; without a folder none are looked for there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._here = folder, dict[str, Sized]()
        self.unwritable = ""  # why nothing could be written, once that was tried

    def find(self, key: str) -> Sized | None:
        if key not in self._here and self._folder is not None:
            try:
                said = json.loads((self._folder / f"{key}.json").read_text())
                parts = said["parts"] and Needed(**said["parts"])
                self._here[key] = Sized(said["size"], parts, said["collectives"])
            except (OSError, ValueError, KeyError, TypeError):  # nothing there, or nothing that was written whole
                return None
        return self._here.get(key)

    def keep(self, key: str, sized: Sized) -> None:
        self._here[key] = sized
        if self._folder is None or self.unwritable:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_text(self._folder / f"{key}.json", json.dumps(asdict(sized)) + "\n")
        except OSError as error:
            self.unwritable = f"{self._folder}: {error.strerror or error}"


def folder() -> Path:
    """`plans` below ADASPEC_CACHE, else below the user's cache directory."""
    if given := os.environ.get(FOLDER):
        return Path(given) / "plans"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaspec_jax" / "plans"


def fingerprint(lowering: Any, topology: Topology, *, effort: float, rounds: float | None) -> str:
    """Of a lowered program and all that its compiler goes by."""
    try:
        compiler = metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        compiler = ""
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    said = f"{jax.__version__} {compiler} {flags} {topology.name} {effort} {rounds}\n{lowering.as_text()}"
    return hashlib.sha256(said.encode()).hexdigest()
