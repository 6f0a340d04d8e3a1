"""What `config.teacher` "auto" comes to, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adaspec_jax import data
from adaspec_jax.config import Experiment
from adaspec_jax.pipeline.workdir import Workdir

_WORTH = 0.9  # "auto" stores where that costs at most this share of recomputing
_SPARE = 2.0  # and where the disk has this many times the room


def decide(
    config: Experiment,
    workdir: Workdir,
    store: data.TokenStore,
    size: int,
    passes: float,
    seconds_of_a_pass: Callable[[], float],
) -> dict[str, str]:
    """{"choice": "recompute" | "hidden" | "top_k", "why"}; "auto" never takes the inexact "top_k".

    It compares `passes` of the target over the text, those still to be trained, with writing `size` bytes once and
    reading them in every pass, by times measured here. UserError where the store asked for cannot be.
    """
    if config.teacher == "recompute":
        return {"choice": "recompute", "why": "frozen models run at every step (config.teacher)"}
    if config.teacher != "auto":
        store.check_room(size, "the teacher store")
        what = "hidden states" if config.teacher == "hidden" else f"{config.teacher_top_k} likeliest tokens per label"
        why = f"the target's {what} are stored in {store.path}, {data.size_in_words(size)} (config.teacher)"
        return {"choice": config.teacher, "why": why}
    free = data.free_bytes(store.path)
    if free < _SPARE * size:
        needed, left = data.size_in_words(size), data.size_in_words(free)
        why = f"frozen models run at every step: storing {needed} would fill the disk ({left} free)"
        return {"choice": "recompute", "why": why}
    forward = seconds_of_a_pass()
    write, read = (size * seconds for seconds in _seconds_per_byte(workdir.path))
    recomputed, stored = passes * forward, forward + write + passes * read
    sums = f"{passes:g} passes over the text, {recomputed:.0f} s of target forwards against {stored:.0f} s with"
    if stored < _WORTH * recomputed:
        why = f"the target's hidden states are stored in {store.path}: {sums} a store of {data.size_in_words(size)}"
        return {"choice": "hidden", "why": why}
    return {"choice": "recompute", "why": f"frozen models run at every step: {sums} a store"}


def _seconds_per_byte(folder: Path, size: int = 2**24) -> tuple[float, float]:
    """(to write, to read back) in this folder; reading mostly finds the file in memory, as a stage's will."""
    probe, content = folder / f".probe.{os.getpid()}.tmp", np.random.default_rng(0).bytes(size)
    try:
        began = time.perf_counter()
        probe.write_bytes(content)
        written = time.perf_counter()
        np.fromfile(probe, np.uint8).sum()
        return (written - began) / size, (time.perf_counter() - written) / size
    finally:
        probe.unlink(missing_ok=True)
