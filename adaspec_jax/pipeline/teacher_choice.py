"""What `config.teacher` "auto" comes to, and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adaspec_jax import data, files
from adaspec_jax.devices import processes

_WORTH = 0.9  # "auto" stores where that costs at most this share of recomputing
_SPARE = 2.0  # and where the disk has this many times the room


class Asked(NamedTuple):
    """How the frozen models' word is to reach the stages, as the config has it."""

    choice: str  # "auto", "recompute", "hidden" or "top_k"
    top_k: int
    sampled_on_the_way: bool  # answers, so that nothing about them can be stored before
    layers: tuple[int, ...] = ()  # of the target's, that heads read at every token
    dtype: str | None = None  # of stored hidden states; None: as they are computed
    place: str | None = None  # of the store; None: in the workdir
    runs_target: bool = False  # whatever is stored: a head guesses with the whole of it


def decide(
    asked: Asked,
    store: data.TokenStore,
    size: int,
    missing: int,
    *,
    passes: float,
    seconds_of_a_pass: Callable[[], float],
) -> dict[str, str]:
    """{"choice": "recompute" | "hidden" | "top_k", "why"}, the same in all processes; "auto" never takes "top_k".

    It compares `passes` of the target over the text, those still to be trained, with writing what is `missing` of
    `size` bytes once and reading them all in every pass, by times measured here. UserError where the store asked for
    cannot be.
    """
    if asked.choice == "recompute":
        return {"choice": "recompute", "why": "frozen models run at every step (config.teacher)"}
    if asked.choice != "auto":
        processes.once(lambda: store.check_room(missing, "the teacher store"))
        what = "hidden states" if asked.choice == "hidden" else f"{asked.top_k} likeliest tokens per label"
        why = f"the target's {what} are stored in {store.path}, {data.size_in_words(size)} (config.teacher)"
        return {"choice": asked.choice, "why": why}
    free = processes.once(lambda: data.free_bytes(store.path))
    unused = f"; config.teacher_store {asked.place} is left as it is" if asked.place else ""
    if free < _SPARE * missing:
        needed, left = data.size_in_words(missing), data.size_in_words(free)
        why = f"frozen models run at every step: storing {needed} would fill the disk ({left} free){unused}"
        return {"choice": "recompute", "why": why}
    forward = seconds_of_a_pass()  # all measure, because all must compute; what the first one finds holds
    return processes.once(lambda: _weighed(store, size, missing, passes, forward, unused))


def _weighed(
    store: data.TokenStore, size: int, missing: int, passes: float, forward: float, unused: str
) -> dict[str, str]:
    write, read = _seconds_per_byte(store.path.parent)
    recomputed = passes * forward
    stored = forward * missing / size + missing * write + passes * size * read
    needed = f"the text is gone through {passes:g} times, which takes the target {recomputed:.0f} s"
    if stored < _WORTH * recomputed:
        kept = f"the target's hidden states are stored in {store.path} ({data.size_in_words(size)})"
        return {"choice": "hidden", "why": f"{kept}: {needed}, and {stored:.0f} s with them"}
    return {
        "choice": "recompute",
        "why": f"frozen models run at every step: {needed}, and {stored:.0f} s with a store{unused}",
    }


def _seconds_per_byte(folder: Path, size: int = 2**24) -> tuple[float, float]:
    """(to write, to read back) in this folder; reading mostly finds the file in memory, as a stage's will."""
    content = np.random.default_rng(0).bytes(size)
    with files.scratch_folder(folder / "probe") as ours:  # every process may measure at once
        probe = Path(ours, "probe")
        began = time.perf_counter()
        probe.write_bytes(content)
        written = time.perf_counter()
        np.fromfile(probe, np.uint8).sum()
        return (written - began) / size, (time.perf_counter() - written) / size
