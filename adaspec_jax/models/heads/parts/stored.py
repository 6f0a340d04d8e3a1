"""A directory of a head as it is read: what its config.json says, checked where it is asked, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.weights import StoredTensor


class Stored(NamedTuple):
    """What a directory holds, beside the target that it is read for."""

    config: Mapping[str, Any]
    tensors: dict[str, StoredTensor]  # what is taken of it is taken out
    target: CausalLM

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.config.get(key)
        if value is not None and type(value) is not bool:
            raise UserError(f'config.json: "{key}" is {value!r}; true or false is needed')
        return default if value is None else value

    def count(self, key: str, *, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if type(value) is not int or value < 0:
            raise UserError(f'config.json: "{key}" is {value!r}; a whole number is needed')
        return value

    def object(self, key: str) -> Mapping[str, Any]:
        """What is said there; nothing where nothing is."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise UserError(f'config.json: "{key}" is {value!r}; an object is needed')
        return value or {}

    def refuse(self, *keys: str) -> None:
        """UserError for what config.json asks for and heads here do not compute."""
        for key in keys:
            if self.config.get(key):
                raise UserError(f'config.json: "{key}" is {self.config[key]!r}, which heads here do not compute')
