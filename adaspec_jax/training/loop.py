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
    model,
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
) -> Callable:
    """`step(state, frozen, batch) -> (state, metrics)`, jitted; the state's buffers are donated.

    The objective sees the parameters in `compute_dtype`; the state keeps them, and the moments, as they are.

    Args:
      average_decay: where the state keeps a moving average of the parameters, d in `average = d average + (1 - d)
        params`, and that average is the reference; in the first steps d is at most (1 + t) / (10 + t).
      rewrite: replaces the batch by what the model itself makes of it, as on-policy distillation does.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, frozen: Frozen, batch: Batch):
        key = jax.random.fold_in(state.key, state.step)
        frozen = replace(frozen, now=Now(state.step, jax.random.fold_in(key, 1)))
        if state.average is not None:
            still = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), state.average)
            frozen = replace(frozen, reference=_with_params(state.model, still))
        if rewrite is not None:
            now = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), state.model.params)
            batch = rewrite(_with_params(state.model, now), batch, jax.random.fold_in(key, 2))

        def loss(params):
            params = jax.tree.map(lambda leaf: leaf.astype(compute_dtype), params)
            return objective(_with_params(state.model, params), frozen, batch)

        (loss_value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.model.params)
        kept = state.model.params
        params, gradient = (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree) for tree in (kept, gradient))
        updates, opt_state = optimizer.update(gradient, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        average = _averaged(state.average, params, state.step, average_decay)
        params = rounded_like(params, kept, jax.random.fold_in(key, 0))
        metrics = {"loss": loss_value, **metrics, "grad_norm": optax.global_norm(gradient)}
        return State(_with_params(state.model, params), opt_state, state.step + 1, state.key, average), metrics

    return step


def _averaged(average: Any, params: Any, step: Array, decay: float) -> Any:
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return None if average is None else jax.tree.map(lambda old, new: d * old + (1 - d) * new, average, params)


def _with_params(model, params):
    return replace(model, params=params)


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
    clock: Callable[[], float] = time.perf_counter,
) -> State:
    """The state after `num_steps` steps, restored from the newest checkpoint first if there is one.

    Metrics stay on the device for `flush_every` steps and are fetched while one more step runs, and batches are placed
    while earlier steps run, so that the device does not wait for the host. A step that had to be compiled for its
    batch's shape logs `compile_seconds`, which no rate includes. Raises `UserError` on a non-finite loss; the last
    checkpoint from before it stays. Where `stopping(step)` says so after a step, that step is saved, and `Stopped`.
    """
    done, logged = 0, None
    if checkpoints and (restored := checkpoints.restore(state)):
        done, state, position = restored
        batches.set_state(position[_BATCHES])
        logged = position[_LOGGED]
    log.rewind(done, logged)
    pending: list[tuple[int, dict]] = []
    compiled: set[tuple[int, ...]] = set()
    began, compiling = clock(), 0.0
    for number in range(done + 1, num_steps + 1):
        batch = place(Batch(**next(batches)))
        called = clock()
        state, metrics = step(state, frozen, batch)
        if batch.tokens_BT.shape not in compiled:  # tracing and compiling hold the call up, the step itself does not
            compiled.add(batch.tokens_BT.shape)
            metrics["compile_seconds"] = clock() - called
            compiling += metrics["compile_seconds"]
        pending.append((number, metrics))
        stops = checkpoints is not None and number < num_steps and stopping(number)
        saves = checkpoints is not None and number % checkpoint_every == 0 and number < num_steps or stops
        running = 0 if saves or number == num_steps else 1
        if not running or len(pending) > flush_every:
            _flush(pending[: len(pending) - running], log, stage, began + compiling, clock)
            pending, began, compiling = pending[len(pending) - running :], clock(), 0.0
        if saves:
            checkpoints.save(number, state, {_LOGGED: log.settle(), _BATCHES: batches.get_state()})
        if stops:
            checkpoints.close()
            raise Stopped(f"stopped by a signal at step {number} of {num_steps} of the {stage} stage, which is saved")
    return state


def _flush(pending: list[tuple[int, dict]], log: Log, stage: str, began: float, clock: Callable[[], float]) -> None:
    """Hands the steps since `began` to the log; `tokens_per_second` (supervised ones) is their common rate."""
    pending = jax.device_get(pending)
    rate = sum(float(metrics.get("tokens", 0)) for _, metrics in pending) / (clock() - began)
    for number, metrics in pending:
        values = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise UserError(
                f"the {stage} stage's loss is {values['loss']} (gradient norm {values['grad_norm']}) at step {number}; "
                f"lower its learning rate or check the data, and delete the {stage} directory to start it again"
            )
        log.write(number, values | {"tokens_per_second": rate})
