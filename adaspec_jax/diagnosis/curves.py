"""How a stage's training went, of the lines of its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaspec_jax.diagnosis.evidence import Curve

_WINDOW = 10  # of the steps, one part in so many is averaged


def curve_of(
    lines: Sequence[Mapping[str, Any]],
    *,
    epochs: float,
    schedule: str,
    clip_norm: float,
    asked_epochs: float | None = None,
) -> Curve | None:
    """None where too few steps were taken to speak of a middle and an end."""
    count = len(lines)
    size = max(count // _WINDOW, 1)
    if count < 4:
        return None
    middle = lines[count // 2 - size // 2 : count // 2 - size // 2 + size]
    end = lines[-size:]
    norms = [line["grad_norm"] for line in lines if line.get("grad_norm") is not None]
    return Curve(
        steps=count,
        epochs=epochs,
        asked_epochs=asked_epochs,
        schedule=schedule,
        agreement_half=_mean(middle, "agreement"),
        agreement_end=_mean(end, "agreement"),
        loss_half=_mean(middle, "loss") or 0.0,
        loss_end=_mean(end, "loss") or 0.0,
        clipped=sum(norm > clip_norm for norm in norms) / len(norms) if norms and clip_norm else None,
    )


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [line[name] for line in lines if line.get(name) is not None]
    return sum(found) / len(found) if found else None
