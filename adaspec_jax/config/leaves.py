"""A config as its leaves, by dotted key; and which of them a workdir may be used again with other values of."""

from __future__ import annotations

import dataclasses
from typing import Any

# What may differ when a workdir is used again: nothing a finished stage depends on.
_MEASUREMENT = ("evaluation.", "published.")
_MACHINE = ("mesh.", "attention", "loss_chunk", "accelerator", "distributed", "checkpoint_every", "metrics")
_RESCUE = ("nonfinite", "most_skipped")  # says nothing of a run that met no such batch
_RECORDED = ("memory", "layers")  # what a stage began with is kept
_ADDED = ("reference.equal_data", "qualifier.")  # further models beside the others, with settings of their own
_SHOWN = ("data.preview", "profile")
FREE_TO_CHANGE = _MEASUREMENT + _MACHINE + _RESCUE + _RECORDED + _ADDED + _SHOWN


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"draft.lr": 1e-4, ...} of a config dataclass."""
    leaves: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        nested = dataclasses.is_dataclass(value)
        leaves |= flatten(value, f"{prefix}{item.name}.") if nested else {f"{prefix}{item.name}": value}
    return leaves
