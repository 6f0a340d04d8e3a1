"""The one decoding loop over a batch. Plain decoding is this loop with `NoDraft`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.exact import check_backend, exactly, has_no_exact_text
from adaspec_jax.decoding.logprobs import Logprobs
from adaspec_jax.decoding.prefill import Kept
from adaspec_jax.decoding.queue import decode_queue
from adaspec_jax.decoding.rounds import Loop, Rounds
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Accept, Context, Drafter, Generation, Model

BUCKET = 64  # prompts and budgets are padded to multiples of this (short ones of half), so that few programs serve all


def generate(
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
) -> Generation:
    """Continues every row of a right-padded prompt by at most `max_new_tokens`, or up to and including an `eos_id`.

    One compiled program: prefill, then rounds of propose, verify and commit in a `lax.while_loop` until every row is
    done. With a lossless `accept` the tokens follow the target alone; the drafter only decides how many target calls
    that takes. Programs are reused while the batch size and the lengths' buckets (multiples of 64, or 32 up to 128)
    stay the same.

    Args:
      target, drafter: pytrees; their weights are arguments of the program, not constants in it.
      prompt: `Context(tokens_BS, lengths_B)` of any integer type, 1 <= lengths_B <= S; with `noise_B` where noise is
        shared and requests are not the same rows every time. In NumPy's arrays, prompts of any length in a bucket need
        no further program, and the call waits for its result; in jax's, padding is a few small programs per length.
      key: a JAX key; unused when greedy and the drafter is deterministic.
      max_new_tokens: per row. Guesses beyond it, or past an EOS, are neither judged nor accepted.
      sampling: applied to target and draft alike; temperature 0 is greedy.
      eos_id: one id or several; -1 never stops early.
      accept: an acceptance rule; see `adaspec_jax.decoding.acceptance`.
      logprobs: which log-probabilities of new tokens to keep in `Generation.logprobs`; None keeps none.
      exact: how many guesses every verification has room for (True: as many as the drafter makes), so that the text is
        to the bit that of every other chain and of `NoDraft()` at the same number; see `adaspec_jax.decoding.exact`.

    Returns:
      A `Generation`; `tokens_BS` has S + max_new_tokens columns.

    Raises:
      ValueError: empty rows, lengths beyond S, or a budget below 1; with `exact` a drafter of trees, text that the
        draws decide, or a backend on which a row's bits depend on its place, its neighbours or its batch.
    """
    if exact is not False:
        target, drafter = checked_exactly(target, drafter, prompt, max_new_tokens, exact, sampling, accept)
    arguments, slots = program_arguments(target, drafter, prompt, key, max_new_tokens, eos_id)
    generation = _decode(*arguments, slots=slots, sampling=sampling, accept=accept, logprobs=logprobs)
    return trimmed(generation, prompt, max_new_tokens)


def generate_from_queue(
    target: Model,
    drafter: Drafter,
    prompts: Context,
    key: Array,
    *,
    rows: int,
    max_new_tokens: int,
    sampling: Sampling,
    eos_id: int | Sequence[int] = -1,
    accept: Accept = rejection_sample,
    logprobs: Logprobs | None = None,
    refill: int | None = None,
) -> Generation:
    """`generate` for any number of prompts, `rows` at a time: rows that end make room for prompts still waiting.

    One compiled program, in which a batch does not wait for its slowest row: as soon as `refill` rows (default: a
    quarter of them, at least one) have ended, they are read out and the next prompts are read in, by one prefill of the
    whole batch. Greedy output is that of `generate`, row by row; sampled output has the same law, and with shared noise
    it is the same too.

    Args:
      prompts: `Context(tokens_PS, lengths_P)`, right-padded; P may be below or above `rows`.
      rows: rows decoded at once.
      The rest: as `generate` takes them. The state of a drafter must have the batch first in every array.

    Returns:
      A `Generation` with P rows, in the order of the prompts.

    Raises:
      ValueError: as `generate`; `rows` or `refill` below 1; a drafter's state without a batch dimension.
    """
    refill = max(rows // 4, 1) if refill is None else refill
    if rows < 1 or not 1 <= refill <= rows:
        raise ValueError(f"rows must be at least 1 and refill between 1 and rows, not {rows} and {refill}")
    arguments, slots = program_arguments(target, drafter, prompts, key, max_new_tokens, eos_id)
    static = {"slots": slots, "sampling": sampling, "accept": accept, "logprobs": logprobs}
    return trimmed(_decode_queue(*arguments, rows=rows, refill=refill, **static), prompts, max_new_tokens)


class Inputs(NamedTuple):
    """What a decoding program takes beside what is static of it (`STATIC`)."""

    target: Any
    drafter: Any
    tokens_BS: Array  # padded to its bucket
    lengths_B: Array
    key: Array
    max_new_tokens: Any
    eos_E: Array
    noise_B: Array | None

    def rounds(self, **static: Any) -> Rounds:
        return Rounds(self.target, self.drafter, self.max_new_tokens, self.eos_E, **static)

    def begun(self, *, kept: Kept | None = None, **static: Any) -> tuple[Rounds, Loop]:
        """The rounds, and the loop before the first of them."""
        rounds = self.rounds(**static)
        return rounds, rounds.start(self.key, self.tokens_BS, self.lengths_B, self.noise_B, kept=kept)


STATIC = ("slots", "sampling", "accept", "logprobs")  # fields of `Rounds` that a program is compiled for


def checked_exactly(
    target: Model,
    drafter: Drafter,
    prompt: Context,
    max_new_tokens: int,
    exact: Any,
    sampling: Sampling,
    accept: Accept,
) -> tuple[Any, Any]:
    """`exactly`, of a drafter that has exact text, on a backend that has it in these shapes; else ValueError."""
    if why := has_no_exact_text(drafter):
        raise ValueError(why)
    alone, widened = exactly(_as_pytree(target), _as_pytree(drafter), exact, sampling=sampling, accept=accept)
    batch, length = np.shape(prompt.tokens_BS)
    check_backend(alone.model, batch, widened.num_nodes, _slots(length, max_new_tokens, widened))
    return alone, widened


def program_arguments(
    target: Model,
    drafter: Drafter,
    prompt: Context,
    key: Array,
    max_new_tokens: int,
    eos_id: int | Sequence[int],
) -> tuple[Inputs, int]:
    """What `_decode` takes, in its order, and the slots a row needs."""
    target, drafter = _as_pytree(target), _as_pytree(drafter)
    tokens_BS, lengths_B = _checked_prompt(prompt, max_new_tokens)
    slots = _slots(np.shape(prompt.tokens_BS)[1], max_new_tokens, drafter)
    eos_E = jnp.asarray(np.atleast_1d(np.asarray(eos_id, np.int32)))
    return Inputs(target, drafter, tokens_BS, lengths_B, key, max_new_tokens, eos_E, prompt.noise_B), slots


def _slots(length: int, max_new_tokens: int, drafter: Drafter) -> int:
    return round_up(length) + round_up(max_new_tokens) + drafter.num_nodes + 1


def trimmed(generation: Generation, prompt: Context, max_new_tokens: int) -> Generation:
    """Without the padding of buckets."""
    width = np.shape(prompt.tokens_BS)[1] + max_new_tokens

    def cut(array: Array) -> Array:
        if array.shape[1] == width:
            return array
        traced = isinstance(array, jax.core.Tracer)
        if _on_host(prompt.tokens_BS) and not traced and len(array.devices()) == 1:  # no program for every width
            return jax.device_put(np.asarray(array)[:, :width], array.sharding)
        return array[:, :width]

    return per_token(generation, cut)


def per_token(generation: Generation, change: Callable[[Array], Array]) -> Generation:
    """With its arrays of an entry per token changed."""
    arrays = {name: getattr(generation, name) for name in _PER_TOKEN}
    return dataclasses.replace(generation, **jax.tree.map(change, arrays))


def _on_host(tokens_BS: Any) -> bool:
    return not isinstance(tokens_BS, jax.Array)


class _Constant:
    """An object of a class that is no pytree, taken into the program as it is: what it holds must not change later."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._value(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


jax.tree_util.register_static(_Constant)


def _as_pytree(value: Any) -> Any:
    shape: Any = jax.tree.structure(value)
    return _Constant(value) if shape == jax.tree.structure(0) else value


_PER_TOKEN = ("tokens_BS", "origin_BS", "rejected_BS", "logprobs")


def round_up(length: int) -> int:
    bucket = BUCKET if length > 2 * BUCKET else BUCKET // 2  # half a bucket of padding weighs more on a short prompt
    return -(-length // bucket) * bucket


def _checked_prompt(prompt: Context, max_new_tokens: int) -> tuple[Array, Array]:
    """(tokens padded to their bucket, lengths)."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if np.ndim(prompt.tokens_BS) != 2 or np.shape(prompt.lengths_B) != np.shape(prompt.tokens_BS)[:1]:
        shapes = f"{np.shape(prompt.tokens_BS)} and {np.shape(prompt.lengths_B)}"
        raise ValueError(f"a prompt is tokens_BS [batch, length] with lengths_B [batch], not {shapes}")
    if not isinstance(prompt.lengths_B, jax.core.Tracer) and getattr(prompt.lengths_B, "is_fully_addressable", True):
        lengths = np.asarray(prompt.lengths_B)
        if lengths.size and not (1 <= lengths.min() and lengths.max() <= prompt.tokens_BS.shape[1]):
            raise ValueError(
                f"prompt lengths must be between 1 and {prompt.tokens_BS.shape[1]}, not {lengths.tolist()}"
            )
    # A prompt on the host is made ready there: on the device that is a few programs for every length.
    host = _on_host(prompt.tokens_BS) and _on_host(prompt.lengths_B)
    xp = np if host else jnp
    tokens_BS, lengths_B = xp.asarray(prompt.tokens_BS, np.int32), xp.asarray(prompt.lengths_B, np.int32)
    # Padding may be any number; one that is no token would poison what attends to it, masked or not.
    tokens_BS = xp.where(xp.arange(tokens_BS.shape[1])[None] < lengths_B[:, None], tokens_BS, 0)
    tokens_BS = xp.pad(tokens_BS, ((0, 0), (0, round_up(tokens_BS.shape[1]) - tokens_BS.shape[1])))
    return jnp.asarray(tokens_BS), jnp.asarray(lengths_B)


@partial(jax.jit, static_argnames=STATIC)
def _decode(*inputs: Any, **static: Any) -> Generation:
    rounds, loop = Inputs(*inputs).begun(**static)
    return rounds.finished(rounds.to_the_end(loop))


@partial(jax.jit, static_argnames=(*STATIC, "rows", "refill"))
def _decode_queue(*inputs: Any, rows: int, refill: int, **static: Any) -> Generation:
    given = Inputs(*inputs)
    waiting = (given.key, given.tokens_BS, given.lengths_B, given.noise_B)
    return decode_queue(given.rounds(**static), *waiting, rows=rows, refill=refill)
