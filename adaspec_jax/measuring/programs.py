"""Programs compiled before they are timed, so that what compiling took and what a program needs are told apart."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from adaspec_jax.decoding import Context, generate, generate_and_learn, with_memory
from adaspec_jax.decoding.exact import exactly
from adaspec_jax.decoding.rounds import Rounds
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import needed
from adaspec_jax.measuring.turns import Contender


class Program:
    """function(*frozen, prompt, key), compiled once for each shape of prompts that it meets."""

    def __init__(self, function: Callable[..., Any], *frozen: Any) -> None:
        self.compile_seconds = 0.0  # of tracing and compiling, in all
        self.peak_bytes = 0  # of a device: the largest program's arguments, temporaries and outputs
        # What is no pytree cannot be an argument: the program holds it as it is.
        self._frozen = [value for value in frozen if _is_pytree(value)]
        whole = [None if _is_pytree(value) else value for value in frozen]

        def call(arguments, prompt, key):
            given = iter(arguments)
            return function(*(next(given) if value is None else value for value in whole), prompt, key)

        self._function, self._compiled = jax.jit(call), {}

    def __call__(self, prompt: Context, key: jax.Array) -> Any:
        shape = prompt.tokens_BS.shape
        if shape not in self._compiled:
            began = time.perf_counter()
            compiled = self._function.lower(self._frozen, prompt, key).compile()
            self.compile_seconds += time.perf_counter() - began
            self.peak_bytes = max(self.peak_bytes, needed(compiled).total)
            self._compiled[shape] = compiled
        return self._compiled[shape](self._frozen, prompt, key)

    def unload(self) -> None:
        """Compiled programs are let go; what is called again is compiled again."""
        self._compiled.clear()

    def forget(self) -> None:
        """As before the first batch."""

    def learn(self, made: Any) -> Any:
        """The generation in what a call made; what else it made is known from now on."""
        return made


class Remembering(Program):
    """A program that also makes the drafter's memory, which the next batch begins with once it is learnt.

    Calls alone teach nothing: a batch that is decoded twice, to warm up, meets the same memory both times.
    """

    def forget(self) -> None:
        self._frozen[-1] = with_memory(self._frozen[-1])

    def learn(self, made: Any) -> Any:
        generation, memory = made
        self._frozen[-1] = dataclasses.replace(self._frozen[-1], memory=memory)
        return generation


def _is_pytree(value: Any) -> bool:
    return jax.tree.structure(value) != jax.tree.structure(0)


def decoding_program(target, contender: Contender, **knobs: Any) -> Program:
    """`generate` with these knobs; `Remembering` for a contender that learns."""

    def decode(target, drafter, prompt, key):
        return generate(target, drafter, prompt, key, accept=contender.accept, exact=contender.exact, **knobs)

    def decode_and_learn(target, drafter, prompt, key):
        made, drafter = generate_and_learn(target, drafter, prompt, key, accept=contender.accept, **knobs)
        return made, jax.tree.map(lambda x: sharding.constrain(x, *[None] * x.ndim), drafter.memory)

    if contender.learns:
        return Remembering(decode_and_learn, target, with_memory(contender.drafter))
    return Program(decode, target, contender.drafter)


def prefill_program(target, contender: Contender, *, max_new_tokens: int, sampling, eos_id) -> Program:
    """What comes before the first round of that decoding."""

    def start(target, drafter, prompt, key):
        if contender.exact is not False:
            how = {"sampling": sampling, "accept": contender.accept}
            target, drafter = exactly(target, drafter, contender.exact, **how)
        slots = prompt.tokens_BS.shape[1] + max_new_tokens + drafter.num_nodes + 1
        end = jax.numpy.atleast_1d(jax.numpy.asarray(eos_id))
        rounds = Rounds(target, drafter, max_new_tokens, end, slots, sampling, contender.accept)
        return rounds.start(key, prompt.tokens_BS, prompt.lengths_B)

    return Program(start, target, contender.drafter)
