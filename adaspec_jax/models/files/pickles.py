"""Old pytorch_model*.bin checkpoints into safetensors: tensors only, a pickle that holds code is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

from adaspec_jax.errors import UserError
from adaspec_jax.files import replacing, write_json
from adaspec_jax.models.files.safetensors import INDEX, SINGLE, listed_shards
from adaspec_jax.places import near_place

BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
BESIDE = ("*.json", "*.model", "*.txt", "*.jinja", "*.md", "LICENSE*")  # config, tokenizer, and what explains them


def convert(source: Path, target: Path) -> list[Path]:
    """Writes `target`'s safetensors (sharded as the source is) and copies config and tokenizer; the files written.

    Tensor names and dtypes are unchanged. UserError without torch, without pytorch_model*.bin, or for a file that holds
    anything but tensors.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such directory{near_place(source)}")
    shards, total_size = _bin_files(source), 0
    weight_map: dict[str, str] = {}
    written: list[Path] = []
    target.mkdir(parents=True, exist_ok=True)
    for i, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        tensors = _read_tensors(shard)
        with replacing(target / name) as temporary:
            _write_tensors(tensors, temporary)
        written.append(target / name)
        weight_map |= dict.fromkeys(tensors, name)
        total_size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(shards) > 1:
        write_json(target / INDEX, {"metadata": {"total_size": total_size}, "weight_map": weight_map})
        written.append(target / INDEX)
    return written + _copy_beside(source, target)


def _bin_files(source: Path) -> list[Path]:
    if (source / BIN).is_file():
        return [source / BIN]
    if not (source / BIN_INDEX).is_file():
        raise UserError(f"{source} has no {BIN} and no {BIN_INDEX}: nothing to convert")
    return listed_shards(source / BIN_INDEX)


def _read_tensors(file: Path) -> dict:
    try:
        import torch
    except ImportError:
        raise UserError("reading a .bin needs PyTorch, which is not installed: pip install torch") from None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: a pickle with code, a truncated zip, a text file
        reason = type(error).__name__  # its text may advise loading the pickle after all
        raise UserError(f"{file} cannot be read as tensors only; is it truncated, or not weights? ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{file} holds something other than a dictionary of tensors")
    # safetensors refuses tensors that share memory (tied embeddings) and views with strides.
    return {name: state.pop(name).detach().contiguous().clone() for name in list(state)}


def _write_tensors(tensors: dict, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})


def _copy_beside(source: Path, target: Path) -> list[Path]:
    copied: list[Path] = []
    if source.resolve() == target.resolve():
        return copied
    for file in sorted({file for pattern in BESIDE for file in source.glob(pattern)}):
        if file.is_file() and file.name not in (BIN_INDEX, INDEX):
            with replacing(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
            copied.append(target / file.name)
    return copied
