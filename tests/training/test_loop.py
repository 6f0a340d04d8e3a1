"""The loop around the step: what it compiles, when, and what it tells the log."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax.training import NotFinite, adamw, fit, init_state, make_step, objectives, selection
from tests.running import optimised
from tests.training import setting

LENGTHS = (16, 24, 16, 24)  # two epochs of two buckets


class Batches:
    def __init__(self, epochs, lengths=LENGTHS):
        self._batches = [setting.batch(n, length=length) for _ in range(epochs) for n, length in enumerate(lengths)]
        self._next = 0

    def __next__(self):
        self._next += 1
        return {k: v for k, v in dataclasses.asdict(self._batches[self._next - 1]).items() if v is not None}

    def get_state(self):
        return {"next": self._next}

    def set_state(self, position):
        self._next = position["next"]


class Log:
    def __init__(self):
        self.lines = []

    def rewind(self, step, checksum=None):
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


SAME_LENGTH = (16,) * 8


def broken_on(*numbers):
    """Distillation whose loss is not finite on some of the batches, which the sum of their tokens tells."""
    marks = [int(setting.batch(number).tokens_BT.sum()) for number in range(len(SAME_LENGTH))]
    assert len({*marks}) == len(marks)

    def objective(model, frozen, batch):
        loss, metrics = objectives.distill()(model, frozen, batch)
        for number in numbers:
            loss *= jnp.where(batch.tokens_BT.sum() == marks[number], jnp.nan if number % 2 else jnp.inf, 1.0)
        return loss, metrics

    return objective


def fitted(objective, steps=8, batches=None, skipped=0, **knobs):
    optimizer, log = adamw(1e-2), Log()
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    step = make_step(objective, optimizer, guarded=skipped > 0)
    batches = batches or Batches(1, SAME_LENGTH)
    knobs |= {"num_steps": steps, "log": log, "flush_every": 20, "skipped": skipped}
    return fit(state, setting.frozen(), batches, step, **knobs), log.lines


def test_of_a_step_that_is_not_finite_the_batch_is_told_though_others_followed():
    with pytest.raises(NotFinite, match=r"^the loss is nan \(gradient norm nan\) at step 4$") as found:
        fitted(broken_on(3))
    assert found.value.step == 4 and np.isnan(found.value.metrics["loss"])
    np.testing.assert_array_equal(found.value.batch["tokens_BT"], setting.batch(3).tokens_BT)


def test_batches_that_are_left_out_change_nothing():
    """The rest is what training without them is."""
    noted, others = [], Batches(1, SAME_LENGTH)
    state, lines = fitted(broken_on(2, 5), skipped=1, note=lambda step, values: noted.append((step, values["loss"])))
    others._batches = [batch for number, batch in enumerate(others._batches) if number not in (2, 5)]
    expected, kept = fitted(broken_on(2, 5), steps=6, batches=others, skipped=1)
    jax.tree.map(np.testing.assert_array_equal, (state.model, state.opt_state), (expected.model, expected.opt_state))
    assert [step for step, loss in noted] == [3, 6] and int(state.step) == 8
    assert not any(np.isfinite(loss) for _, loss in noted)
    losses = [line["loss"] for line in lines]
    assert [n for n, loss in enumerate(losses, 1) if not np.isfinite(loss)] == [3, 6]
    assert [loss for loss in losses if np.isfinite(loss)] == [line["loss"] for line in kept]


def test_too_many_in_a_row_end_the_stage():
    noted = []
    with pytest.raises(NotFinite) as found:
        fitted(broken_on(1, 3, 4, 5), skipped=2, note=lambda step, values: noted.append(step))
    assert found.value.step == 6 and noted == [2, 4, 5]


class Earlier:
    """A checkpoint after two steps, whose position is written in one of two ways."""

    def __init__(self, state, position):
        self._found = 2, state, position

    def restore(self, state):
        return self._found


@pytest.mark.parametrize("position", [{"next": 2}, {"batches": {"next": 2}, "logged": 7}], ids=["of before", "now"])
def test_a_stage_goes_on_from_a_checkpoint_of_before_too(position):
    whole, _ = fitted(objectives.distill(), steps=4)
    two, _ = fitted(objectives.distill(), steps=2)
    log, step = Log(), make_step(objectives.distill(), adamw(1e-2))
    log.rewind = lambda done, checksum: log.lines.append((done, checksum))
    knobs = {"num_steps": 4, "log": log, "checkpoints": Earlier(two, position), "checkpoint_every": 9}
    state = fit(two, setting.frozen(), Batches(1, SAME_LENGTH), step, **knobs)
    assert log.lines[0] == (2, position.get("logged"))
    jax.tree.map(np.testing.assert_array_equal, state.model, whole.model)
