"""What `target.early_exit` says: how the target is tuned so that its own first layers can draft for it (LayerSkip)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.knobs import checked

# See `training.objectives.early_exit`, whose numbers these are.
KNOBS = MappingProxyType({"p_max": 0.1, "scale": 1.0, "weights": "linear", "curriculum": "gradual", "period": 8})
WORDS = MappingProxyType(
    {"weights": ("linear", "cumulative", "uniform"), "curriculum": ("gradual", "rotational", "one", "all")}
)


def read_early_exit(said: str) -> dict[str, Any]:
    """The objective's knobs that are set, as in p_max=0.2,curriculum=rotational; UserError for what cannot work."""
    key, values = "config.target.early_exit", {}
    for part in filter(None, said.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name in values:
            raise UserError(f'{key} is "{said}"; give each KNOB=VALUE once, as in p_max=0.1,curriculum=gradual')
        values[name] = value
    made: dict[str, Any] = dict(KNOBS) | checked(key, KNOBS, values)
    for name, known in WORDS.items():
        if made[name] not in known:
            raise UserError(f'{key}: {name} is "{made[name]}"{did_you_mean(made[name], known)}')
    for name, fits, range_ in (
        ("p_max", 0 <= made["p_max"] < 1, "from 0 to below 1"),
        ("scale", made["scale"] >= 0, "from 0 on"),
        ("period", made["period"] >= 1, "from 1 on"),
    ):
        if not fits:
            raise UserError(f"{key}: {name} is {made[name]}; it must be {range_}")
    return made
