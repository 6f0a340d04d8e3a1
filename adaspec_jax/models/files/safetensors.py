"""Safetensors on disk: tensors of a directory opened lazily, and written as transformers reads them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json, replacing
from adaspec_jax.models.files.weights import StoredTensor

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
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read; is it truncated? ({error})") from None
    return {
        name: StoredTensor(tuple(piece.get_shape()), piece.get_dtype(), partial(handle.get_tensor, name))
        for name, piece in slices.items()
    }
