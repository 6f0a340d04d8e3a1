"""How the values of this room become pytrees."""

from __future__ import annotations

import dataclasses

import jax


def pytree(*static: str):
    """Registers a frozen dataclass whose `static` fields are compile-time constants."""

    def register(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
        data = [f.name for f in dataclasses.fields(cls) if f.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register
