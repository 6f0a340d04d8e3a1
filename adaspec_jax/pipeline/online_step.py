"""The step by which a draft learns online: how fast, at which tokens, and the programs that it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax

from adaspec_jax.models.heads import Head, features_of
from adaspec_jax.training import Batch, Frozen, adamw, make_step, objectives
from adaspec_jax.training.divergences import Divergence, forward_kl


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a draft learns, and what is kept; numbers that are OSD's scripts' are marked so."""

    every: int = 8  # requests to a step [code]
    rate: float = 1e-4  # constant [code]
    at: Literal["refused", "answers"] = "refused"  # tokens: whose guess was refused [code], or all of the answers
    divergence: Divergence = forward_kl  # [code]
    longest: int = 1024  # tokens of a request that are kept: the first ones
    save: int = 1  # steps to a version on the disk; those after the last one are made again from their requests
    keep: int = 3  # versions on the disk, beside the draft as it was given
    compared: int = 100  # requests over which the draft must agree with its target as often as the given one
    weight_decay: float = 0.0
    clip_norm: float = 1.0


class Programs(NamedTuple):
    """What learning computes; compiled once for every width of a batch, whatever the weights."""

    optimizer: Any
    step: Callable
    compare: Callable


@functools.cache
def programs_of(of_a_head: bool, pace: Pace, dtype: Any) -> Programs:
    minimised: Callable[..., objectives.Objective] = objectives.distill_head if of_a_head else objectives.distill
    objective = minimised(pace.divergence)
    optimizer = adamw(pace.rate, weight_decay=pace.weight_decay, clip_norm=pace.clip_norm)
    step = make_step(objective, optimizer, compute_dtype=dtype, guarded=True)
    return Programs(optimizer, step, jax.jit(_compared(objective)))


def _compared(objective: Callable) -> Callable:
    """(target, now, given, batch, answers_BT) -> (the batch with what the target says, {"now", "given"}: agreement)."""

    def compare(target: Any, now: Any, given: Any, batch: Batch, answers_BT: jax.Array) -> tuple[Batch, dict]:
        if isinstance(now, Head):
            features_BTF = features_of(target, batch.tokens_BT, now.config.taught_layers)
            taught: dict[str, Any] = {"target_features_BTF": features_BTF}
        else:
            taught = {"target_hidden_BTD": target.features(batch.tokens_BT)[0]}
        batch = replace(batch, **taught)
        whole = replace(batch, loss_mask_BT=answers_BT)
        drafts = {"now": now, "given": given}
        return batch, {name: objective(draft, Frozen(target), whole)[1]["agreement"] for name, draft in drafts.items()}

    return compare
