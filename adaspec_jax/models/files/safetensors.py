"""Safetensors on disk: tensors of a directory opened lazily, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adaspec_jax.errors import UserError
from adaspec_jax.models.files.weights import StoredTensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def open_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a single or sharded checkpoint, unread; UserError that names the file at fault.

    A single file wins over an index, as in transformers.
    """
    if (directory / SINGLE).is_file():
        files = [directory / SINGLE]
    elif (directory / INDEX).is_file():
        files = _shards(directory)
    elif any(directory.glob("pytorch_model*.bin*")):
        raise UserError(
            f"{directory} has only pytorch_model*.bin, which is a pickle and is not loaded; convert it with "
            f"`python -m adaspec_jax.convert --in {directory} --out {directory}`"
        )
    else:
        raise UserError(f"{directory} has no {SINGLE} and no {INDEX}")
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= _tensors_of(file)
    return tensors


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """`tensors` as one safetensors file that transformers accepts."""
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # the library makes it the owner's alone, which no server could read


def write_json(path: Path, value: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """The object a JSON file holds; UserError that names the file when it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block succeeds: a kill leaves no half file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _shards(directory: Path) -> list[Path]:
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f'{directory / INDEX} has no "weight_map"')
    names = sorted(set(map(str, weight_map.values())))
    if absent := [name for name in names if not (directory / name).is_file()]:
        raise UserError(f"{directory}: {INDEX} lists shards that are not there: {', '.join(absent)}")
    return [directory / name for name in names]


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    try:
        handle = safe_open(file, framework="numpy")
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not iterable itself)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read; is it truncated? ({error})") from None
    return {
        name: StoredTensor(tuple(piece.get_shape()), piece.get_dtype(), partial(handle.get_tensor, name))
        for name, piece in slices.items()
    }
