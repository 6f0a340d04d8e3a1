"""Where a model and its files lie: a directory, a name below a given folder, or the hub. Reads none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from adaspec_jax.errors import UserError, first_line

ADAPTER = "adapter_config.json"  # lies where PEFT saved what it adds to a model
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # a path may begin with a dot, a name may not


def find_local(path_or_name: str) -> Path | None:
    """The local directory, or that name below ADASPEC_WEIGHTS; None for a name to ask the hub for; else UserError."""
    path_or_name = str(path_or_name)
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    if below := find_below("ADASPEC_WEIGHTS", path_or_name, holding=("config.json", ADAPTER)):
        return below
    if Path(path_or_name).exists():
        raise UserError(f"{path_or_name} is a file; give the directory that holds config.json and model.safetensors")
    if not HUB_NAME.fullmatch(path_or_name):
        raise UserError(f"{path_or_name}: no such directory")
    return None


def file_of(path_or_name: str, file: str, *, reachable: Callable[[], bool], needed: bool = False) -> Path | None:
    """One file of a directory or hub name, nothing else being fetched; None where there is no such file.

    `reachable` says whether to ask the hub, else what was fetched before counts; UserError where the hub does not give
    the file that is `needed`.
    """
    if (directory := find_local(path_or_name)) is not None:
        return directory / file if (directory / file).is_file() else None
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    name, online = str(path_or_name), reachable()
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, local_files_only=not online))
    except EntryNotFoundError as error:
        if not needed:
            return None
        unreachable = ConnectionError("the hub cannot be reached")
        raise not_given_by_the_hub(name, error if online else unreachable) from error
    except Exception as error:
        raise not_given_by_the_hub(name, error) from error


def find_below(variable: str, name: str, *, holding: Iterable[str], folder: str = "") -> Path | None:
    """`a/b` or `b`, for a hub name a/b, below the folder (or a folder in it) that an environment variable names.

    The first of the two that holds one of these files; None where neither does.
    """
    root = os.environ.get(variable)
    if not root or not HUB_NAME.fullmatch(name):
        return None
    candidates = (Path(root, folder, candidate) for candidate in (name, name.rpartition("/")[2]))
    return next((path for path in candidates if any((path / file).is_file() for file in holding)), None)


def only_an_adapter(place: object, said: dict) -> UserError:
    """What to say of a place with an `ADAPTER` that says this."""
    base = said.get("base_model_name_or_path") or "an unnamed model"
    return UserError(
        f"{place} holds an adapter of {base}, as its {ADAPTER} says, and adapters are not read; merge it into that "
        "model (PEFT: merge_and_unload, then save_pretrained elsewhere), or remove the file where that is done"
    )


def not_given_by_the_hub(name: str, error: Exception) -> UserError:
    """What to say of the many errors that the hub's client raises: not found, gated, offline, broken proxy."""
    return UserError(
        f'"{name}" is not a local directory, and the hub did not give it ({first_line(error)}); '
        "without network, pass the path of a downloaded directory"
    )
