"""What two runs of one command must have alike: every file, but for times and what names or sums them."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from adaspec_jax import files

# Measured by a clock, or following from that: nothing else may differ (docs/reliability.md lists them).
TIMES = re.compile(
    r"compile_seconds|seconds_of_last_session|tokens_per_second|plain_tokens_per_second|costs_in_seconds|speedup|"
    r"draft_step_cost|first_draft_step_cost|verification_cost|promised_speedup|promised_speedup_at_best|promised_by_length|"
    r"best_draft_length|seconds"
)
_SUMS = {"decisions.json": ("checksum", "report"), "stage.json": ("checksum", "files")}  # of files that have times
_FREE = re.compile(r"run/compilation_cache/.*|(\d\.)?std(out|err)\.txt|moments\.json")  # the latter of the test itself


def alike(directory: Path) -> dict[str, Any]:
    """{path: what it holds} of all files that a run left below its BASE."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() or path.is_dir() and not any(path.iterdir()))
    names = {str(path.relative_to(directory)): path for path in found}
    return {name: _content(path) for name, path in names.items() if not _FREE.fullmatch(name)}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The names, and where both are JSON the keys, in which a result of `alike` differs from what was expected."""
    return [
        each for name in sorted({*expected, *found}) for each in _compared(name, expected.get(name), found.get(name))
    ]


def _compared(name: str, one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [each for key in keys for each in _compared(f"{name}: {key}", one.get(key), other.get(key))]
    if one is None or other is None:
        return [f"{name} is {'too much' if one is None else 'missing'}"]
    shown = [str(value)[:60] for value in (one, other)]
    return [f"{name} differs ({shown[0]}, {shown[1]})"]


def _content(path: Path) -> Any:
    if path.is_dir():
        return "an empty folder"
    if path.name == "report.html":  # the same numbers, drawn
        return "a page"
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        return _timeless({key: item for key, item in value.items() if key not in _SUMS.get(path.name, ())})
    if path.name == "evidence.json.gz":
        return _timeless(files.read_packed(path, mend="run it again"))
    if path.suffix == ".jsonl":
        return {f"line {n}": _timeless(json.loads(line)) for n, line in enumerate(path.read_text().splitlines(), 1)}
    if path.suffix == ".npz":  # the archive has bits that say nothing
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays.files}
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            return f"damaged: {error}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not TIMES.fullmatch(key)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
