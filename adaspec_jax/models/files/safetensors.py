"""Safetensors on disk: tensors of a directory opened lazily, and written as transformers reads them.

Files written here carry a checksum of each tensor, which is held against what is read.
"""

from __future__ import annotations

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adaspec_jax.errors import UserError
from adaspec_jax.files import parsed, read_json, replacing
from adaspec_jax.models.files.weights import StoredTensor
from adaspec_jax.program import called_as

_SUMS = "adaspec_jax_crc32"  # in a file's metadata: of each tensor's bytes
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def open_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a single or sharded checkpoint, unread; UserError that names the file at fault.

    A single file wins over an index, as in transformers.
    """
    if (directory / SINGLE).is_file():
        files = [directory / SINGLE]
    elif (directory / INDEX).is_file():
        files = listed_shards(directory / INDEX)
    elif any(directory.glob("pytorch_model*.bin*")):
        raise UserError(
            f"{directory} has only pytorch_model*.bin, which is a pickle and is not loaded; convert it with "
            f"`{called_as('convert')} --in {directory} --out {directory}`"
        )
    else:
        raise UserError(f"{directory} has no {SINGLE} and no {INDEX}")
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= _tensors_of(file)
    return tensors


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """`tensors` as one safetensors file that transformers accepts."""
    sums = {name: _checksum(array) for name, array in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", _SUMS: json.dumps(sums, sort_keys=True)})
        _put_metadata_in_order(temporary)


def _put_metadata_in_order(file: Path) -> None:
    """The library writes it in a random order, and equal tensors are to make equal files."""
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= length:  # spaces at its end are the format's own padding
            opened.seek(8)
            opened.write(ordered.ljust(length))


def listed_shards(index: Path) -> list[Path]:
    """The files that an index beside them lists; UserError where it lists none, or one that is not there."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f'{index} has no "weight_map"; copy or download it again')
    names = sorted(set(map(str, weight_map.values())))
    if outside := [name for name in names if Path(name).name != name]:
        raise UserError(f"{index} lists {outside[0]!r}, which is not the name of a file beside it")
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise UserError(f"{index.parent}: {index.name} lists shards that are not there: {', '.join(absent)}")
    return [index.parent / name for name in names]


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    try:
        handle = safe_open(file, framework="numpy")
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not iterable itself)
        sums = dict(parsed((handle.metadata() or {}).get(_SUMS, "{}")))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read; is it truncated? ({error})") from None
    return {
        name: StoredTensor(
            tuple(piece.get_shape()), piece.get_dtype(), partial(_read, file, handle, name, sums.get(name))
        )
        for name, piece in slices.items()
    }


def _read(file: Path, handle: Any, name: str, checksum: int | None) -> np.ndarray:
    """A tensor; UserError where a checksum was written and is not its."""
    array = handle.get_tensor(name)
    if checksum is not None and _checksum(array) != checksum:
        raise UserError(f"{file} is damaged: {name} is not what was written; copy it again, or have it made again")
    return array


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
