"""A config from the keys that a run's config.json has: `flatten` backwards."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from adaspec_jax.config.architectures import FAMILIES, ROPES, Architecture, Described, Llama3Rope, Rope
from adaspec_jax.config.experiment import Experiment


def experiment_of(leaves: Mapping[str, Any]) -> Experiment:
    """The experiment with these keys, as in {"draft.lr": 1e-4}; what is not there has its default.

    Keys that are unknown are passed over: a run of before may have had more.
    """
    return _filled(Experiment(), "", leaves)


def _filled(config: Any, prefix: str, leaves: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        key, default = prefix + item.name, getattr(config, item.name)
        inside = {name.removeprefix(f"{key}."): v for name, v in leaves.items() if name.startswith(f"{key}.")}
        if item.name == "architecture":
            values[item.name] = _architecture(inside) if inside else None
        elif dataclasses.is_dataclass(default):
            values[item.name] = _filled(default, f"{key}.", leaves)
        elif key in leaves:
            values[item.name] = tuple(leaves[key]) if isinstance(leaves[key], list) else leaves[key]
    return dataclasses.replace(config, **values)


def _architecture(leaves: Mapping[str, Any]) -> Architecture:
    """Of lists, which JSON has for tuples, too."""
    family: Any = FAMILIES.get(leaves["model_type"], Described)
    names = {item.name for item in dataclasses.fields(family)}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in leaves.items()}
    stretch = {key.partition(".")[2]: value for key, value in given.items() if key.startswith("rope_scaling.")}
    values = {name: value for name, value in given.items() if name in names}
    return family(**values, **({"rope_scaling": _stretch(stretch)} if stretch else {}))


def _stretch(leaves: Mapping[str, Any]) -> Rope:
    kind = ROPES.get(leaves["rope_type"], Llama3Rope)  # which has "default" too
    names = {item.name for item in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in leaves.items() if name in names})
