"""The loop around the step: what it compiles, when, and what it tells the log."""

import dataclasses

import jax
import numpy as np
import optax

from adaspec_jax.training import adamw, fit, init_state, make_step, objectives, selection
from tests.running import optimised
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

    def settle(self):
        pass

    def rewind(self, step):
        assert step == 0

    def write(self, step, values):
        self.lines.append({"step": step, **values})


def test_nothing_is_compiled_after_the_first_epoch_and_every_step_is_logged():
    """By a clock that goes on by 5 s when the step is compiled, and by a quarter of a second for every batch."""
    optimizer = adamw(1e-3)
    step = make_step(objectives.distill(), optimizer)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    log, count, now = Log(), 3 * len(LENGTHS), [0.0]

    def timed(state, frozen, batch):
        before = step._cache_size()
        made = step(state, frozen, batch)
        now[0] += 5.0 * (step._cache_size() - before)
        return made

    def place(batch):
        now[0] += 0.25
        return batch

    knobs = {"num_steps": count, "log": log, "flush_every": 3, "place": place, "clock": lambda: now[0]}
    fit(state, setting.frozen(), Batches(3), timed, **knobs)
    assert step._cache_size() == 2
    assert [line["step"] for line in log.lines] == list(range(1, count + 1))
    assert [line["step"] for line in log.lines if "compile_seconds" in line] == [1, 2]
    assert [line["compile_seconds"] for line in log.lines[:2]] == [5.0, 5.0]
    # A rate is that of the steps fetched together: three while a fourth runs, and at the end all that are left. It
    # counts the batches taken meanwhile, and no compilation.
    tokens = [line["tokens"] for line in log.lines]
    for steps, batches in ((slice(0, 3), 4), (slice(3, 6), 3), (slice(6, 9), 3), (slice(9, 12), 2)):
        rates = [line["tokens_per_second"] for line in log.lines[steps]]
        assert rates == [sum(tokens[steps]) / (0.25 * batches)] * 3


def test_a_moving_average_stands_for_the_reference():
    """The gap is the draft's lag behind its own average, whose first decays are 1/10, 2/11, ..."""
    optimizer, target = adamw(1e-2), setting.frozen().target
    step = make_step(objectives.selective_distill(fraction=0.4), optimizer, average_decay=0.15)
    state = init_state(setting.model(2), optimizer, jax.random.key(0), averaged=True)
    frozen, average = objectives.Frozen(target=target), jax.tree.map(np.asarray, state.average)
    step = optimised(step, state, frozen, setting.batch(0))
    for number, decay in enumerate((0.1, 0.15, 0.15)):
        reference = dataclasses.replace(setting.model(2), params=average)
        beside = objectives.Frozen(target=target, reference=reference)
        model = jax.tree.map(np.asarray, state.model)
        expected, _ = objectives.selective_distill(fraction=0.4)(model, beside, setting.batch(number))
        state, metrics = step(state, frozen, setting.batch(number))
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, average, state.model.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.average, average)
    assert float(metrics["gap"]) != 0


def test_a_fraction_may_change_with_the_step_and_a_random_rule_with_the_key():
    optimizer = adamw(1e-3)
    annealed = objectives.selective_distill(fraction=optax.linear_schedule(1.0, 0.2, 4), rule=selection.random)
    step = make_step(annealed, optimizer)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    shares, dropped = [], []
    for _ in range(6):
        state, metrics = step(state, setting.frozen(), setting.batch(0))
        shares.append(float(metrics["share_kept"]))
        dropped.append(float(metrics["kl_dropped"]))
    np.testing.assert_allclose(shares, [1, 0.8, 0.6, 0.4, 0.2, 0.2], atol=0.03)
    assert dropped[-1] != dropped[-2]  # as many tokens, not the same


def test_a_rewritten_batch_is_what_is_trained_on():
    optimizer, other = adamw(1e-3), setting.batch(7)
    seen = []

    def rewrite(model, batch, key):
        seen.append(jax.tree.leaves(model.params)[0].dtype)
        return other

    step = make_step(objectives.distill(), optimizer, compute_dtype="bfloat16", rewrite=rewrite)
    plain = make_step(objectives.distill(), optimizer, compute_dtype="bfloat16")
    ours, theirs = (init_state(setting.model(2), optimizer, jax.random.key(0)) for _ in range(2))
    _, rewritten = step(ours, setting.frozen(), setting.batch(0))
    _, expected = plain(theirs, setting.frozen(), other)
    np.testing.assert_allclose(rewritten["loss"], expected["loss"], rtol=1e-5)
    assert seen == ["bfloat16"]
