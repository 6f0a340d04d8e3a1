"""The loop around the step: what it compiles, when, and what it tells the log."""

import dataclasses

import jax

from adaspec_jax.training import adamw, fit, init_state, make_step, objectives
from tests.training import setting

LENGTHS = (16, 24, 16, 24)  # two epochs of two buckets


class Batches:
    def __init__(self, epochs):
        self._batches = iter(
            [setting.batch(n, length=length) for _ in range(epochs) for n, length in enumerate(LENGTHS)]
        )

    def __next__(self):
        return {k: v for k, v in dataclasses.asdict(next(self._batches)).items() if v is not None}


class Log:
    def __init__(self):
        self.lines = []

    def rewind(self, step):
        assert step == 0

    def write(self, step, values):
        self.lines.append({"step": step, **values})


def test_nothing_is_compiled_after_the_first_epoch_and_every_step_is_logged():
    optimizer = adamw(1e-3)
    step = make_step(objectives.distill(), optimizer)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    log, count = Log(), 3 * len(LENGTHS)
    fit(state, setting.frozen(), Batches(3), step, num_steps=count, log=log, flush_every=3)
    assert step._cache_size() == 2
    assert [line["step"] for line in log.lines] == list(range(1, count + 1))
    assert [line["step"] for line in log.lines if "compile_seconds" in line] == [1, 2]
    assert all(line["tokens_per_second"] > 0 for line in log.lines)
    # Compilation takes seconds and a step milliseconds: a rate that included it would be far below the others.
    assert log.lines[0]["compile_seconds"] > 0.1
    assert log.lines[0]["tokens_per_second"] > 0.05 * log.lines[-1]["tokens_per_second"]
