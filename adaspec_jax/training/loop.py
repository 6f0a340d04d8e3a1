"""Fits one model against frozen others: one jitted step with donated state, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.training.checkpoints import Checkpoints
from adaspec_jax.training.objectives import Batch, Frozen, Now, Objective
from adaspec_jax.training.optimizers import rounded_like

_BATCHES, _LOGGED = "batches", "logged"  # keys of the position beside a checkpoint


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """All that a step changes."""

    model: Any
    opt_state: Any
    step: Array
    key: Array
    average: Any = None  # of the parameters, float32, where one is kept


def init_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    master: Any = jnp.float32,
    averaged: bool = False,
) -> State:
    """The state before the first step, with the parameters kept in `master` and moments of a float32 model.

    In bfloat16, updates are added in float32 and rounded stochastically, so that small ones are not lost.
    """
    # Copies, of each array once: the state is donated, and the caller's model must outlive the first step.
    beside = jax.tree.map(jnp.array, _with_params(model, None))
    kept = _with_params(beside, jax.tree.map(lambda leaf: jnp.array(leaf, master), model.params))
    moments = optimizer.init(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params))
    average = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), model.params) if averaged else None
    return State(kept, moments, jnp.zeros((), jnp.int32), key, average)


Rewrite = Callable[[Any, Batch, Array], Batch]  # (model, batch, key) -> the batch to train on


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    compute_dtype: Any = jnp.float32,
    average_decay: float = 0.999,
    rewrite: Rewrite | None = None,
    guarded: bool = False,
) -> Callable:
    """`step(state, frozen, batch) -> (state, metrics)`, jitted; the state's buffers are donated.

    The objective sees the parameters in `compute_dtype`; the state keeps them, and the moments, as they are.

    Args:
      average_decay: where the state keeps a moving average of the parameters, d in `average = d average + (1 - d)
        params`, and that average is the reference; in the first steps d is at most (1 + t) / (10 + t).
      rewrite: replaces the batch by what the model itself makes of it, as on-policy distillation does.
      guarded: a batch whose loss or gradient norm is not finite changes nothing but the count of steps. XLA then keeps
        a part of the state twice.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, frozen: Frozen, batch: Batch) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        frozen = replace(frozen, now=Now(state.step, jax.random.fold_in(key, 1)))
        if state.average is not None:
            still = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), state.average)
            frozen = replace(frozen, reference=_with_params(state.model, still))
        if rewrite is not None:
            now = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), state.model.params)
            batch = rewrite(_with_params(state.model, now), batch, jax.random.fold_in(key, 2))

        def loss(params: Any) -> tuple[Array, dict[str, Array]]:
            params = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), params)
            with jax.named_scope("loss"):
                return objective(_with_params(state.model, params), frozen, batch)

        (loss_value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.model.params)
        kept = state.model.params
        params, gradient = (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree) for tree in (kept, gradient))
        with jax.named_scope("update"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, params)
            params = optax.apply_updates(params, updates)
            average = _averaged(state.average, params, state.step, average_decay)
            params = rounded_like(params, kept, jax.random.fold_in(key, 0))
        metrics = {"loss": loss_value, **metrics, "grad_norm": optax.global_norm(gradient)}
        if guarded:
            good = jnp.isfinite(loss_value) & jnp.isfinite(metrics["grad_norm"])
            new, old = (params, opt_state, average), (kept, state.opt_state, state.average)
            params, opt_state, average = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, old)
        return State(_with_params(state.model, params), opt_state, state.step + 1, state.key, average), metrics

    return step


def _averaged(average: Any, params: Any, step: Array, decay: float) -> Any:
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return None if average is None else jax.tree.map(lambda old, new: d * old + (1 - d) * new, average, params)


def _with_params(model: Any, params: Any) -> Any:
    return replace(model, params=params)


class NotFinite(UserError):
    """The loss or the gradient norm of a `step` is no number, or infinite; with its metrics and its batch."""

    def __init__(self, step: int, metrics: dict[str, float], batch: dict) -> None:
        super().__init__(f"the loss is {metrics['loss']} (gradient norm {metrics['grad_norm']}) at step {step}")
        self.step, self.metrics, self.batch = step, metrics, batch


class Batches(Protocol):
    """An iterator of dicts {tokens_BT, loss_mask_BT} that can tell and take its position."""

    def __next__(self) -> dict: ...
    def __iter__(self) -> Iterator: ...
    def get_state(self) -> dict: ...
    def set_state(self, state: dict) -> None: ...


class Log(Protocol):
    """Receives one dict of floats per step; `rewind` forgets what lies past a restored step.

    After `settle`, what was written outlasts a power cut: a checkpoint must not know of steps that the log has lost. It
    gives a checksum of that, which `rewind` holds what it keeps against.
    """

    def rewind(self, step: int, checksum: int | None = None) -> None: ...
    def write(self, step: int, values: dict[str, float]) -> None: ...
    def settle(self) -> int: ...


def fit(
    state: State,
    frozen: Frozen,
    batches: Batches,
    step: Callable,
    *,
    num_steps: int,
    log: Log,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 200,
    flush_every: int = 10,
    place: Callable[[Batch], Batch] = lambda batch: batch,
    stage: str = "training",
    stopping: Callable[[int], bool] = lambda step: False,
    skipped: int = 0,
    note: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    clock: Callable[[], float] = time.perf_counter,
) -> State:
    """The state after `num_steps` steps, restored from the newest checkpoint first if there is one.

    Metrics stay on the device for `flush_every` steps and are fetched while one more step runs, and batches are placed
    while earlier steps run, so that the device does not wait for the host. A step that had to be compiled for its
    batch's shape logs `compile_seconds`, which no rate includes. `NotFinite` where a loss or gradient norm is not, or
    with a guarded step where more than `skipped` in a row are not: the last checkpoint from before it stays; `note` is
    told of one that is left out. Where `stopping(step)` says so after a step, that step is saved, and `Stopped`.
    """
    done, logged = 0, None
    if checkpoints and (restored := checkpoints.restore(state)):
        done, state, position = restored
        batches.set_state(position.get(_BATCHES, position))  # alone, in checkpoints of before
        logged = position.get(_LOGGED)
    log.rewind(done, logged)
    pending: list[tuple[int, dict, dict]] = []  # step, metrics, position of its batch
    compiled: set[tuple[int, ...]] = set()
    flush = _Flush(log, batches, skipped, note)
    began, compiling = clock(), 0.0
    for number in range(done + 1, num_steps + 1):
        position = batches.get_state()
        batch = place(Batch(**next(batches)))
        called = clock()
        state, metrics = step(state, frozen, batch)
        if batch.tokens_BT.shape not in compiled:  # tracing and compiling hold the call up, the step itself does not
            compiled.add(batch.tokens_BT.shape)
            metrics["compile_seconds"] = clock() - called
            compiling += metrics["compile_seconds"]
        pending.append((number, metrics, position))
        stops = checkpoints is not None and number < num_steps and stopping(number)
        saves = checkpoints is not None and number % checkpoint_every == 0 and number < num_steps or stops
        running = 0 if saves or number == num_steps else 1
        if not running or len(pending) > flush_every:
            fetched, pending = pending[: len(pending) - running], pending[len(pending) - running :]
            flush(fetched, clock() - began - compiling)
            began, compiling = clock(), 0.0
        if saves and checkpoints is not None:
            checkpoints.save(number, state, {_LOGGED: log.settle(), _BATCHES: batches.get_state()})
        if stops and checkpoints is not None:
            checkpoints.close()
            raise Stopped(f"stopped by a signal at step {number} of {num_steps} of the {stage} stage, which is saved")
    return state


class _Flush:
    """Hands steps to the log, and judges those that are not finite."""

    def __init__(self, log: Log, batches: Batches, skipped: int, note: Callable) -> None:
        self._log, self._batches, self._skipped, self._note = log, batches, skipped, note
        self._bad = 0  # steps without a finite one between, up to now

    def __call__(self, pending: list[tuple[int, dict, dict]], seconds: float) -> None:
        """Steps as (number, metrics, position of the batch), which took so long together: their common rate is logged.

        `tokens_per_second` counts supervised ones.
        """
        positions = [position for *_, position in pending]
        fetched = jax.device_get([(number, metrics) for number, metrics, _ in pending])
        rate = sum(float(metrics.get("tokens", 0)) for _, metrics in fetched) / seconds
        for (number, metrics), position in zip(fetched, positions, strict=True):
            values = {name: value.tolist() if np.ndim(value) else float(value) for name, value in metrics.items()}
            self._bad = 0 if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]) else self._bad + 1
            if self._bad > self._skipped:
                self._batches.set_state(position)
                raise NotFinite(number, values, next(self._batches))
            if self._bad:
                self._note(number, values)
            self._log.write(number, values | {"tokens_per_second": rate})
