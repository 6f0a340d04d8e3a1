"""What the parts of a round cost here and now: the inputs of the speed-up formula, measured instead of assumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.sampling import most_likely
from adaspec_jax.decoding.speedup import best_draft_length, speedup
from adaspec_jax.decoding.types import Model

LONGEST = 16  # guesses; verifications are measured at least up to this length
_CALLS, _REPEATS = 8, 3


def seconds_per_call(
    model: Model, *, batch: int, width: int, slots: int, place: Callable[[Any], Any] = lambda rows: rows
) -> float:
    """Of `width` new tokens per row against a half-full cache of `slots`, greedy choice included, compilation not.

    The median of a few compiled loops of calls. `place` puts rows onto the devices of a mesh.
    """
    tokens_BT = place(jnp.ones((batch, width), jnp.int32))
    jax.block_until_ready(_loop(model, tokens_BT, slots=slots))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(_loop(model, tokens_BT, slots=slots))
        seconds.append((time.perf_counter() - began) / _CALLS)
    return statistics.median(seconds)


def verification_seconds(
    target: Model, *, batch: int, slots: int, place: Callable[[Any], Any] = lambda rows: rows, longest: int = LONGEST
) -> dict[int, float]:
    """{guesses: seconds of the target call that verifies them}; 0 guesses is a plain step, 1, 3, 7, ... follow."""
    lengths = [0]
    while lengths[-1] < longest:
        lengths.append(min(2 * lengths[-1] + 1, longest))
    return {
        length: seconds_per_call(target, batch=batch, width=length + 1, slots=slots, place=place) for length in lengths
    }


def between(measured: dict[int, float], length: int) -> float:
    """A verification of any length up to the longest measured: interpolated linearly."""
    if length in measured:
        return measured[length]
    low, high = max(n for n in measured if n < length), min(n for n in measured if n > length)
    share = (length - low) / (high - low)
    return measured[low] + share * (measured[high] - measured[low])


@partial(jax.jit, static_argnames="slots")
def _loop(model: Model, tokens_BT, *, slots: int):
    batch = tokens_BT.shape[0]

    def call(_, carry):
        tokens_BT, cache = carry
        logits_BTV, after = model(tokens_BT, cache)
        return most_likely(logits_BTV), after.roll_back(cache.lengths_B)

    cache = model.init_cache(batch, slots).roll_back(jnp.full((batch,), slots // 2))
    return jax.lax.fori_loop(0, _CALLS, call, (tokens_BT, cache))[0]


def round_costs(
    target: Any,
    drafts: Mapping[str, Any],
    shape_BT: tuple[int, int],
    *,
    max_new_tokens: int,
    longest: int = LONGEST,
    place: Callable[[Any], Any] = lambda rows: rows,
) -> dict[str, Any]:
    """Seconds of {"target_step", "verification": {guesses: ...}, "draft_step": {draft: ...}} for prompts of a shape."""
    sizes = {"batch": shape_BT[0], "slots": shape_BT[1] + max_new_tokens, "place": place}
    verification = verification_seconds(target, **sizes, longest=longest)
    return {
        "target_step": verification[0],
        "verification": {str(length): seconds for length, seconds in verification.items() if length},
        "draft_step": {name: seconds_per_call(model, width=1, **sizes) for name, model in drafts.items()},
    }


def best_length(costs: Mapping[str, Any], name: str, alpha: float, used: int = 1) -> dict[str, float]:
    """The draft length that the measured costs and acceptance make fastest, and the speed-up they promise there.

    `best_draft_length` 0: no length is faster than plain decoding. With what a draft step and a verification of `used`
    guesses cost in target steps, and what that length promises.
    """
    step = costs["target_step"]
    verification = {0: step} | {int(length): seconds for length, seconds in costs["verification"].items()}
    c = costs["draft_step"][name] / step

    def v(length: int) -> float:
        return between(verification, length) / step

    best, promised = best_draft_length(alpha, c, v, longest=max(verification))
    return {
        "best_draft_length": best,
        "promised_speedup_at_best": promised,
        "promised_speedup": speedup(alpha, used, c, v(used)),
        "draft_step_cost": c,
        "verification_cost": v(used),
    }
