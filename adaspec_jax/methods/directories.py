"""What a directory given as a draft holds, by its own files' word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.files import read_json

KIND_FILE = "drafter.json"  # {"kind": NAME}, beside config.json; a plain model needs none
PLAIN_MODEL = "model"


def _chain(directory: Path, length: int, dtype) -> Drafter:
    return ChainDrafter(models.load(str(directory), dtype=dtype), length=length)


_LOADERS: dict[str, Callable[[Path, int, object], Drafter]] = {PLAIN_MODEL: _chain}


def load_drafter(path_or_name: str, *, length: int = 5, dtype="float32") -> Drafter:
    """The drafter that a directory (or hub name) holds, guessing `length` tokens in a row where it may choose.

    A plain language model becomes a `ChainDrafter`. UserError where the directory says it is of a kind unknown here.
    """
    directory = models.find_directory(path_or_name)
    return _LOADERS[kind_of(directory)](directory, length, dtype)


def kind_of(directory: Path) -> str:
    """What drafter.json says, or for lack of one config.json; UserError for a kind that is unknown here."""
    kind = _said(directory)
    if kind not in _LOADERS:
        raise UserError(f'{directory} holds a drafter of the kind "{kind}"{did_you_mean(kind, _LOADERS)}')
    return kind


def _said(directory: Path) -> str:
    if (directory / KIND_FILE).is_file():
        return str(read_json(directory / KIND_FILE).get("kind"))
    if not (directory / "config.json").is_file():
        return PLAIN_MODEL  # `models.load` says what is missing
    config = read_json(directory / "config.json")
    # Heads made elsewhere name themselves: "eagle3" (speculators), or their target's class with an ending of their own.
    if "speculators_model_type" in config:
        return str(config["speculators_model_type"])
    foreign = [
        name for name in config.get("architectures") or () if name.rpartition("ForCausalLM")[2] not in ("", name)
    ]
    return foreign[0] if foreign else PLAIN_MODEL
