"""Continuous batching: rows of a batch that have ended are given to prompts still waiting, inside the program."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.noise import request_keys
from adaspec_jax.decoding.rounds import Loop, Rounds
from adaspec_jax.decoding.types import Generation


class _Queue(NamedTuple):
    loop: Loop
    prompt_B: Array  # which prompt a row works on; P: none
    next: Array  # the first prompt no row has taken
    results: Generation  # [P, ...]


def decode_queue(
    rounds: Rounds,
    key: Array,
    tokens_PS: Array,
    lengths_P: Array,
    noise_P: Array | None,
    *,
    rows: int,
    refill: int,
) -> Generation:
    """Every prompt's `Generation`, `rows` of them at a time; traced by `engine.generate_from_queue`."""
    prompts = tokens_PS.shape[0]
    if noise_P is None and rounds.sampling.shares_noise:
        noise_P = request_keys(key, jnp.arange(prompts))

    def begin(key: Array, prompt_B: Array) -> Loop:
        taken_B = jnp.minimum(prompt_B, prompts - 1)
        noise_B = None if noise_P is None else noise_P[taken_B]
        loop = rounds.start(key, tokens_PS[taken_B], lengths_P[taken_B], noise_B)
        return loop._replace(done_B=prompt_B >= prompts)

    def read_out(queue: _Queue) -> Generation:
        """The results with every ended row's; a row without a prompt points past their end and is dropped."""
        at_B = jnp.where(queue.loop.done_B, queue.prompt_B, prompts)
        ended = rounds.finished(queue.loop)
        return jax.tree.map(lambda whole, row: whole.at[at_B].set(row, mode="drop"), queue.results, ended)

    def read_in(queue: _Queue) -> _Queue:
        loop, done_B = queue.loop, queue.loop.done_B
        taken_B = queue.next + jnp.cumsum(done_B) - 1
        prompt_B = jnp.where(done_B, jnp.minimum(taken_B, prompts), queue.prompt_B)
        loop_key, start_key = jax.random.split(loop.key)
        fresh = begin(start_key, jnp.where(done_B, prompt_B, prompts))

        def chosen(new: Array, old: Array) -> Array:
            return jnp.where(done_B.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        merged = jax.tree.map(chosen, fresh._replace(key=()), loop._replace(key=()))
        return _Queue(merged._replace(key=loop_key), prompt_B, queue.next + jnp.sum(done_B), read_out(queue))

    def step(queue: _Queue) -> _Queue:
        queue = queue._replace(loop=rounds.one_round(queue.loop))
        ended = jnp.sum(queue.loop.done_B & (queue.prompt_B < prompts))
        waiting = queue.next < prompts
        return jax.lax.cond(waiting & (ended >= refill), read_in, lambda queue: queue, queue)

    first_B = jnp.arange(rows, dtype=jnp.int32)
    loop = begin(key, jnp.minimum(first_B, prompts))
    _check_batch_first(loop._replace(key=()), rows)
    empty = jax.tree.map(
        lambda row: jnp.zeros((prompts, *row.shape[1:]), row.dtype), jax.eval_shape(rounds.finished, loop)
    )
    queue = _Queue(loop, jnp.minimum(first_B, prompts), jnp.int32(rows), empty)
    return read_out(jax.lax.while_loop(lambda queue: ~jnp.all(queue.loop.done_B), step, queue))


def _check_batch_first(loop: Loop, rows: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(loop):
        if leaf.shape[:1] != (rows,):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"a queue needs the batch first in every array of a drafter's state, not {name} {leaf.shape}"
            )
