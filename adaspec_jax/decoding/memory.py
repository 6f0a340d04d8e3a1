"""Requests one after the other: what a drafter learnt of some, it may guess from in those that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.engine import STATIC, Inputs, program_arguments, trimmed
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Accept, Context, Drafter, Generation, Model, WholeDrafter


def remembers(drafter: Drafter) -> bool:
    """Whether a drafter can learn across requests: whether it has `remember`."""
    return hasattr(drafter, "remember")


def with_memory(drafter: Drafter) -> Drafter:
    """The drafter with the memory that it has before its first request; ValueError for one that does not remember."""
    if not remembers(drafter):
        raise ValueError(f"{type(drafter).__name__} does not learn across requests: it has no `remember`")
    return _remembering(drafter, cast(WholeDrafter, drafter).blank())


def _remembering(drafter: Any, memory: Any) -> Drafter:
    return dataclasses.replace(drafter, memory=memory)


def generate_and_learn(
    target: Model,
    drafter: Drafter,
    prompt: Context,
    key: Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    eos_id: int | Sequence[int] = -1,
    accept: Accept = rejection_sample,
) -> tuple[Generation, Drafter]:
    """What `generate` gives, and the drafter with what these requests taught it, to be handed to the next call.

    A drafter without a memory begins with a blank one. Rows of a batch do not learn from each other while they are
    decoded; what they teach is taken in their order. With a lossless `accept` a memory changes how many target calls
    are made, and never the text's law. It keeps its shapes, so that programs are reused as those of `generate` are.

    Raises:
      ValueError: as `generate`; a drafter that does not learn across requests (see `remembers`).
    """
    drafter = with_memory(drafter) if getattr(drafter, "memory", None) is None else drafter
    arguments, slots = program_arguments(target, drafter, prompt, key, max_new_tokens, eos_id)
    generation, memory = _decode_and_learn(*arguments, slots=slots, sampling=sampling, accept=accept)
    return trimmed(generation, prompt, max_new_tokens), _remembering(drafter, memory)


@partial(jax.jit, static_argnames=STATIC)
def _decode_and_learn(*inputs: Any, **static: Any) -> tuple[Generation, Any]:
    """The generation, and the drafter's memory after it."""
    given = Inputs(*inputs)
    rounds, loop = given.begun(**static)
    loop = rounds.to_the_end(loop)
    return rounds.finished(loop), given.drafter.remember(loop.draft_state, loop.context, loop.start_lengths_B)
