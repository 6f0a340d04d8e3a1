"""`generate`, a round at a time: what is committed is known as soon as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.engine import checked_exactly, program_arguments, trimmed
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
    static = {"slots": slots, "sampling": sampling, "accept": accept}
    loop = _start(*arguments, **static)
    target, drafter, _, _, _, budget, ends, _ = arguments
    while not loop.done_B.all():
        loop, made = _round(loop, target, drafter, budget, ends, **static)
        yield trimmed(made, prompt, max_new_tokens)


@partial(jax.jit, static_argnames=("slots", "sampling", "accept"))
def _start(
    target, drafter, tokens_BS, lengths_B, key, max_new_tokens, eos_E, noise_B, *, slots, sampling, accept
) -> Loop:
    rounds = Rounds(target, drafter, max_new_tokens, eos_E, slots, sampling, accept)
    return rounds.start(key, tokens_BS, lengths_B, noise_B)


# The loop's buffers are written where they lie: nobody reads the one before.
@partial(jax.jit, static_argnames=("slots", "sampling", "accept"), donate_argnums=0)
def _round(loop: Loop, target, drafter, max_new_tokens, eos_E, *, slots, sampling, accept) -> tuple[Loop, Generation]:
    rounds = Rounds(target, drafter, max_new_tokens, eos_E, slots, sampling, accept)
    loop = rounds.one_round(loop)
    return loop, rounds.finished(loop)
