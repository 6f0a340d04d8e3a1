"""Traces of what device and host do: jax's profiler around some steps, or around all that a block does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from adaspec_jax.errors import UserError


@contextlib.contextmanager
def traced(directory: str | Path | None) -> Iterator[None]:
    """Writes what happens in the block to `directory`: for xprof and TensorBoard, and perfetto_trace.json.gz.

    Nothing where there is none.
    """
    if directory is None:
        yield
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{directory} is a file; name a directory for the trace") from None
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python's, a million of them, would leave no room for the rest
    jax.profiler.start_trace(str(directory), create_perfetto_trace=True, profiler_options=options)
    try:
        yield
    finally:
        jax.profiler.stop_trace()


@contextlib.contextmanager
def tracing_steps(step: Callable, steps: range | None, directory: str | Path, *, told: Callable[[str], None]):
    """`step` as it is, or one that writes a trace of its calls of these numbers; `told` says where it is.

    `step(state, ...)` gives `(state, metrics)`, and `state.step` counts the calls before. A trace that a stop cuts
    short is written as far as it came.
    """
    if steps is None:
        yield step
        return
    with contextlib.ExitStack() as trace:
        number = None

        def numbered(state, *arguments):
            nonlocal number
            number = int(state.step) + 1 if number is None else number + 1  # read once: it waits for the device
            if number in steps and (number == steps[0] or not begun):
                begun.append(number)
                trace.enter_context(traced(directory))
            with jax.profiler.StepTraceAnnotation("step", step_num=number):
                after = step(state, *arguments)
            if begun and number == steps[-1]:
                jax.block_until_ready(after)
                trace.close()
                told(f"steps {begun[0]} to {number} are traced in {directory}")
            return after

        begun: list[int] = []
        yield numbered
