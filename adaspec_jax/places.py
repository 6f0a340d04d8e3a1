"""Where a model lies: a directory, a name below ADASPEC_WEIGHTS, or the hub. Knows nothing of what is in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from adaspec_jax.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_local(path_or_name: str) -> Path | None:
    """The local directory, or that name below ADASPEC_WEIGHTS; None for a name to ask the hub for; else UserError."""
    path_or_name = str(path_or_name)
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    if os.environ.get("ADASPEC_WEIGHTS") and HUB_NAME.fullmatch(path_or_name):
        for name in (path_or_name, path_or_name.rpartition("/")[2]):
            if (Path(os.environ["ADASPEC_WEIGHTS"], name) / "config.json").is_file():
                return Path(os.environ["ADASPEC_WEIGHTS"], name)
    if Path(path_or_name).exists():
        raise UserError(f"{path_or_name} is a file; give the directory that holds config.json and model.safetensors")
    if not HUB_NAME.fullmatch(path_or_name):
        raise UserError(f"{path_or_name}: no such directory")
    return None


def not_given_by_the_hub(name: str, error: Exception) -> UserError:
    """What to say of the many errors that the hub's client raises: not found, gated, offline, broken proxy."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f'"{name}" is not a local directory, and the hub did not give it ({reason}); '
        "without network, pass the path of a downloaded directory"
    )
