"""Programs compiled before they are timed, so that what compiling took and what a program needs are told apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from adaspec_jax.decoding import Context, generate
from adaspec_jax.decoding.exact import exactly
from adaspec_jax.decoding.rounds import Rounds
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


def _is_pytree(value: Any) -> bool:
    return jax.tree.structure(value) != jax.tree.structure(0)


def decoding_program(target, contender: Contender, **knobs: Any) -> Program:
    """`generate` with these knobs."""

    def decode(target, drafter, prompt, key):
        return generate(target, drafter, prompt, key, accept=contender.accept, exact=contender.exact, **knobs)

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
