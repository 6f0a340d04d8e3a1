"""`generate`, a round at a time: what is committed is known as soon as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.engine import STATIC, Inputs, checked_exactly, program_arguments, trimmed
from adaspec_jax.decoding.logprobs import Logprobs
from adaspec_jax.decoding.rounds import Loop, Rounds
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Accept, Context, Drafter, Generation, Model


def stream(
    target: Model,
    drafter: Drafter,
    prompt: Context,
    key: Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    eos_id: int | Sequence[int] = -1,
    accept: Accept = rejection_sample,
    logprobs: Logprobs | None = None,
    exact: bool | int = False,
) -> Iterator[Generation]:
    """The `Generation` as it stands after each round; the last one is what `generate` returns, token for token.

    Arguments and errors as `generate`. Two compiled programs, a prefill and a round, reused as its one is; the host
    learns after every round whether all rows are done, which costs a round trip each. Nothing runs ahead of what was
    taken: who stops iterating has paid for no further round.
    """
    if exact is not False:
        target, drafter = checked_exactly(target, drafter, prompt, max_new_tokens, exact, sampling, accept)
    arguments, slots = program_arguments(target, drafter, prompt, key, max_new_tokens, eos_id)
    static = {"slots": slots, "sampling": sampling, "accept": accept, "logprobs": logprobs}
    loop = _start(*arguments, **static)
    these = (arguments.target, arguments.drafter, arguments.max_new_tokens, arguments.eos_E)
    while not loop.done_B.all():
        loop, made = round_of(loop, *these, **static)
        yield trimmed(made, prompt, max_new_tokens)


@partial(jax.jit, static_argnames=STATIC)
def _start(*inputs: Any, **static: Any) -> Loop:
    return Inputs(*inputs).begun(**static)[1]


# The loop's buffers are written where they lie: nobody reads the one before.
@partial(jax.jit, static_argnames=STATIC, donate_argnums=0)
def round_of(
    loop: Loop, target: Model, drafter: Drafter, max_new_tokens: Any, eos_E: Array, **static: Any
) -> tuple[Loop, Generation]:
    rounds = Rounds(target, drafter, max_new_tokens, eos_E, **static)
    loop = rounds.one_round(loop)
    return loop, rounds.finished(loop)
