"""What a directory given as a draft holds, by its own files' word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaspec_jax import models
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.drafter_file import PLAIN_MODEL, chain_method, guesses_at_masks, kind_in
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.models import heads
from adaspec_jax.models.stop_head import FOLDER as STOP_HEAD


def load_drafter(
    path_or_name: str | Path, *, length: int = 5, dtype: Any = "float32", target: models.CausalLM | None = None
) -> Drafter:
    """The drafter that a directory (or hub name) holds, guessing `length` tokens in a row, or as many as it can.

    A plain language model becomes a `ChainDrafter`; a head on a target's features needs that `target`. UserError where
    the directory says it is of a kind unknown here, or a head's target is not given or another one.
    """
    directory = models.find_directory(path_or_name)
    if (kind := kind_of(directory)) == PLAIN_MODEL:
        return chain_of(models.load(str(directory), dtype=dtype), target, length)
    if target is None:
        raise UserError(f"{directory} holds a head of the kind {kind}, which guesses from its target: give that too")
    return chain_of(models.load_head(directory, target, dtype=dtype), target, length)


def method_for(drafts: Sequence[str]) -> str:
    """The method by which the first of these directories or hub names guesses in a row; "plain" where there is none."""
    if not drafts:
        return "plain"
    directory = models.find_directory(drafts[0])
    if (kind := kind_of(directory)) != PLAIN_MODEL:
        return chain_method(kind)
    if guesses_at_masks(directory):
        return "pard"
    return "specdec_pp" if (directory / STOP_HEAD).is_dir() else "vanilla"


def kind_of(directory: Path) -> str:
    """What drafter.json says, or for lack of one config.json; UserError for a kind that is unknown here."""
    kind, known = kind_in(directory) or PLAIN_MODEL, (PLAIN_MODEL, *heads.kinds())
    if kind not in known:
        raise UserError(f'{directory} holds a drafter of the kind "{kind}"{did_you_mean(kind, known)}')
    return kind
