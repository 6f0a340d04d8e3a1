"""What the parts of a round cost here and now: the inputs of the speed-up formula, measured instead of assumed."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from adaspec_jax.decoding.prefill import see
from adaspec_jax.decoding.sampling import GREEDY, Sampling, most_likely
from adaspec_jax.decoding.speedup import RoundCosts, best_draft_length, between, speedup
from adaspec_jax.decoding.types import Context, Drafter, Model, asks_of
from adaspec_jax.devices import processes, sharding
from adaspec_jax.measuring.placing import rows_on
from adaspec_jax.methods import Given
from adaspec_jax.reporting import working

LONGEST = 16  # guesses; verifications are measured at least up to this length
_CALLS, _REPEATS = 8, 3


def seconds_per_call(
    model: Model, *, batch: int, width: int, slots: int, place: Callable[[Any], Any] = lambda rows: rows
) -> float:
    """Of `width` new tokens per row against a half-full cache of `slots`, greedy choice included, compilation not.

    The median of a few compiled loops of calls. `place` puts rows onto the devices of a mesh.
    """
    tokens_BT = place(np.ones((batch, width), np.int32))
    return _median_seconds(lambda: _loop(model, tokens_BT, slots=slots))


def _median_seconds(loop: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one call in a compiled loop of `_CALLS`."""
    jax.block_until_ready(loop())
    seconds = []
    for _ in range(_REPEATS):
        began = clock()
        jax.block_until_ready(loop())
        seconds.append((clock() - began) / _CALLS)
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


@partial(jax.jit, static_argnames="slots")
def _loop(model: Model, tokens_BT, *, slots: int):
    batch = tokens_BT.shape[0]

    def call(_, carry):
        tokens_BT, cache = carry
        logits_BTV, after = model(tokens_BT, cache)
        return most_likely(logits_BTV), after.roll_back(cache.lengths_B)

    cache = model.init_cache(batch, slots).roll_back(jnp.full((batch,), slots // 2))
    return jax.lax.fori_loop(0, _CALLS, call, (tokens_BT, cache))[0]


def model_of(drafter: Drafter) -> Model | None:
    """The model whose own choices or draws a drafter's guesses are, where there is one such model."""
    return None if _has_rounds_inside(drafter) else getattr(drafter, "model", None)


def length_of(drafter: Drafter) -> int | None:
    """Guesses in a row, of a drafter that makes the same number of them in every round, and could make any."""
    same = getattr(drafter, "stop", None) is None and not _has_rounds_inside(drafter)
    return getattr(drafter, "length", None) if same else None


def priced(drafter: Drafter) -> bool:
    """Whether `round_costs` says what its rounds cost, so that a length can be chosen: a model's or a head's chain."""
    return length_of(drafter) is not None and (model_of(drafter) is not None or hasattr(drafter, "head"))


def _has_rounds_inside(drafter: Drafter) -> bool:
    """Whether it takes rounds of another drafter's, as many as their text asks for: what it costs depends on that."""
    return hasattr(drafter, "drafter")


def lengthened(drafter: Drafter, length: int) -> Drafter:
    """With so many guesses, or as many as it can make."""
    return dataclasses.replace(drafter, length=length)


def drafting_seconds(
    drafter: Drafter,
    target: Model,
    *,
    batch: int,
    slots: int,
    sampling: Sampling = GREEDY,
    place: Callable[[Any], Any] = lambda rows: rows,
) -> float:
    """What a model's or a head's drafter does in one round, its reading of what was committed included, in seconds.

    Against a half-full cache of `slots`; the median of a few compiled loops, as `seconds_per_call`. `target`: whose
    hidden states a head would read.
    """
    tokens_BS = place(np.ones((batch, slots), np.int32))
    hidden = tuple(place(np.zeros(each.shape, each.dtype)) for each in _seen(target, drafter, batch))
    writes = getattr(drafter, "enters", False) or getattr(drafter, "writes_target_cache", False)
    cache = place(target.init_cache(batch, slots)) if writes else None
    return _median_seconds(lambda: _drafting_loop(drafter, tokens_BS, hidden, cache, sampling=sampling))


def _seen(target: Model, drafter: Drafter, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The hidden states of a verification that the drafter asks for, as shapes."""
    if not (layers := asks_of(drafter).layers):
        return ()

    def verified(target):
        tokens_BM = jnp.zeros((batch, drafter.num_nodes + 1), jnp.int32)
        return see(target, layers, tokens_BM, target.init_cache(batch, tokens_BM.shape[1])).hidden

    return jax.eval_shape(verified, target)


@partial(jax.jit, static_argnames="sampling")
def _drafting_loop(drafter: Drafter, tokens_BS, hidden, target_cache, *, sampling: Sampling):
    batch, slots = tokens_BS.shape
    here = slots // 2
    first = tuple(hidden_BMD[:, :1] for hidden_BMD in hidden)
    begun = Context(tokens_BS[:, :1], jnp.ones((batch,), jnp.int32), hidden=first, sampling=sampling)
    zeros_B = jnp.zeros((batch,), jnp.int32)
    known = {"accepted_B": zeros_B, "judged_B": zeros_B, "sampling": sampling}
    if hidden:
        known["path_BN"] = jnp.zeros((batch, drafter.num_nodes), jnp.int32)

    def call(number, carry):
        tokens_BS, state, cache = carry
        last_B11 = tokens_BS[:, here - 1][:, None, None]
        seen = tuple(hidden_BMD + last_B11.astype(hidden_BMD.dtype) for hidden_BMD in hidden)
        written = None if cache is None else cache.roll_back(zeros_B + here - 1)
        context = Context(tokens_BS, zeros_B + here, hidden=seen, target_cache=written, **known)
        proposal, state = drafter.propose(jax.random.key(number), state, context)
        # The next round depends on this one's guesses, so that none can be left out.
        return tokens_BS.at[:, here - 1].set(proposal.tokens_BN[:, -1]), state, proposal.target_cache

    if target_cache is not None:
        target_cache = target_cache.roll_back(zeros_B)
    return jax.lax.fori_loop(0, _CALLS, call, (tokens_BS, drafter.init(begun, slots), target_cache))[0]


def round_costs(
    target: Model,
    drafters: Mapping[str, Drafter],
    shape_BT: tuple[int, int],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    longest: int = LONGEST,
    place: Callable[[Any], Any] = lambda rows: rows,
) -> dict[str, Any]:
    """Seconds of the parts of a round, for prompts of a shape.

    {"target_step", "verification": {guesses: ...}, "first_draft_step": {name: ...}, "draft_step": {name: ...}}: the
    first step reads what was committed and guesses once, each further one adds a guess. "longest" has the most guesses
    of those that cannot make as many as were measured. Of drafters that are not `priced` there is nothing; those that
    differ in their weights alone are timed once.
    """
    slots = shape_BT[1] + max_new_tokens
    verification = verification_seconds(target, batch=shape_BT[0], slots=slots, longest=longest, place=place)
    shape = {"batch": shape_BT[0], "slots": slots, "sampling": sampling, "place": place}
    first, further, most = {}, {}, {}
    timed: dict[Any, list[float]] = {}
    for name, drafter in drafters.items():
        if not priced(drafter):
            continue
        program = _shapes_of(drafter)
        if program not in timed:
            timed[program] = [drafting_seconds(lengthened(drafter, n), target, **shape) for n in (1, longest)]
        first[name], whole = timed[program]
        if (can := length_of(lengthened(drafter, longest))) < longest:
            most[name] = can
        further[name] = max(whole - first[name], 0.0) / max(can - 1, 1)
    return {
        "target_step": verification[0],
        "verification": {str(length): seconds for length, seconds in verification.items() if length},
        "first_draft_step": first,
        "draft_step": further,
        **({"longest": most} if most else {}),
    }


def _shapes_of(drafter: Drafter) -> tuple[Any, ...]:
    """What its compiled programs depend on: equal of two that differ in their weights alone."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda drafter: drafter, drafter))
    return structure, *((leaf.shape, leaf.dtype) for leaf in leaves)


def parts_of(costs: Mapping[str, Any], name: str) -> RoundCosts:
    """Of one drafter, from what `round_costs` says."""
    verification = {0: costs["target_step"]} | {int(length): cost for length, cost in costs["verification"].items()}
    return RoundCosts(costs["first_draft_step"][name], costs["draft_step"][name], verification)


def rounds_priced(
    given: Given,
    drafter: Drafter,
    longest: int,
    *,
    shapes_BT: Sequence[tuple[int, int]] = ((1, 64),),
    max_new_tokens: int = 128,
    sampling: Sampling = GREEDY,
    mesh: Mesh | None = None,
    times: int = 1,
) -> dict[int, RoundCosts]:
    """{batch size: what rounds of up to `longest` guesses of a chain cost}, in seconds, at these shapes of prompts.

    A `Given.costs`. The median of so many `times` that all parts are measured in turn. Clocks differ: of several
    processes the first one's figures hold.
    """
    how = {"max_new_tokens": max_new_tokens, "sampling": sampling, "longest": max(longest, 2)}
    if mesh is not None:
        how["place"] = rows_on(mesh)
    found = {}
    laid = contextlib.nullcontext() if mesh is None else sharding.over(mesh)
    with laid, working("measuring what a round costs", said_in_a_log=False):
        for shape_BT in shapes_BT:
            again = [round_costs(given.target, {"draft": drafter}, shape_BT, **how) for _ in range(times)]
            costs = jax.tree.map(lambda *each: statistics.median(each), *again)
            found[shape_BT[0]] = parts_of(processes.once(lambda costs=costs: costs), "draft")
    return found


def best_length(costs: Mapping[str, Any], name: str, alpha: float, used: int = 1) -> dict[str, Any]:
    """The draft length that the measured costs and acceptance make fastest, and the speed-up they promise there.

    `best_draft_length` 0: no length is faster than plain decoding. `promised_by_length`: of 1, 2, ...
    guesses. With what the first and a further draft step and a verification of `used` guesses cost in target steps, and
    what that length promises.
    """
    parts, step = parts_of(costs, name), costs["target_step"]
    first, c = parts.first / step, parts.further / step

    def v(length: int) -> float:
        return between(parts.verification, length) / step

    def besides(length: int) -> float:
        """What a round costs beside `length` equal draft steps."""
        return v(length) + max(first - c, 0.0)

    longest = costs.get("longest", {}).get(name, max(parts.verification))
    best, promised = best_draft_length(alpha, c, besides, longest=longest)
    return {
        "best_draft_length": best,
        "promised_speedup_at_best": promised,
        "promised_speedup": speedup(alpha, used, c, besides(used)),
        "promised_by_length": [speedup(alpha, length, c, besides(length)) for length in range(1, longest + 1)],
        "first_draft_step_cost": first,
        "draft_step_cost": c,
        "verification_cost": v(used),
    }
