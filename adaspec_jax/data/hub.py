"""Rows of data sets on the Hugging Face hub, by the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from adaspec_jax.data.network import offline_unless_reachable
from adaspec_jax.errors import UserError

PREFIX = "hf:"


class Unavailable(Exception):
    """This way does not lead to the rows; the next may."""


class HubName(NamedTuple):
    """A data set's split on the hub."""

    name: str
    config: str | None
    split: str


def parse(text: str) -> HubName:
    """ "hf:NAME:SPLIT" or "hf:NAME:CONFIGURATION:SPLIT"; UserError for anything else."""
    parts = text.removeprefix(PREFIX).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f'"{text}" names no data set: write hf:NAME:SPLIT or hf:NAME:CONFIGURATION:SPLIT')
    return HubName(parts[0], parts[1] if len(parts) == 3 else None, parts[-1])


def rows_from_hub(wanted: HubName) -> list[Mapping]:
    """All rows of the split, as they are; `Unavailable` without the library or the data set."""
    try:
        import datasets
    except ImportError as error:
        raise Unavailable("Hugging Face datasets is not installed (pip install datasets)") from error
    try:
        with offline_unless_reachable():
            found = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
        return [dict(row) for row in found]
    except Exception as error:
        raise Unavailable(f"Hugging Face {wanted.name} failed ({short(error)})") from error


def short(error: Exception) -> str:
    """Its kind, and the beginning of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
