"""How the values of this room become pytrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True)
def pytree(*static: str) -> Callable[[type[Value]], type[Value]]:
    """Registers a frozen dataclass whose `static` fields are compile-time constants."""

    def register(cls: type[Value]) -> type[Value]:
        made: Any = dataclasses.dataclass(frozen=True)(cls)
        data = [f.name for f in dataclasses.fields(made) if f.name not in static]
        return jax.tree_util.register_dataclass(made, data_fields=data, meta_fields=list(static))

    return register
