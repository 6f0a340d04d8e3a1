"""One stage of the pipeline: its batches, optimiser, checkpoints, metrics and finished directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import data, models, reporting, sharding
from adaspec_jax.config import Experiment, Fit, draft_schedule
from adaspec_jax.errors import UserError
from adaspec_jax.text import Text
from adaspec_jax.training import Checkpoints, Frozen, adamw, fit, init_state, learning_rate, make_step
from adaspec_jax.workdir import Workdir

_DATA_SEED = 2  # added to the config's seed, so that data order and initial weights are drawn apart


def schedule(config: Experiment, name: str) -> tuple[float, int]:
    """(epochs, batch size) of a stage."""
    spec: Fit = getattr(config, name)
    return draft_schedule(spec) if name == "draft" else (spec.epochs, spec.batch_size)


def num_steps(config: Experiment, name: str, examples: int) -> int:
    """Batches of a stage; `UserError`, naming the keys, where there is not one update to make."""
    epochs, batch_size = schedule(config, name)
    steps = data.num_steps(examples, batch_size, epochs)
    accumulate = getattr(config, name).accumulate
    if steps < accumulate:
        raise UserError(
            f"{epochs:g} epochs of {examples} examples at batch {batch_size} make {steps} batches, and {accumulate} "
            f"make an update: raise config.{name}.epochs, or lower config.{name}.batch_size or .accumulate"
        )
    return steps


def fit_stage(
    name: str,
    objective,
    model: models.CausalLM,
    frozen: Frozen,
    *,
    config: Experiment,
    text: Text,
    mesh,
    workdir: Workdir,
    store: data.TokenStore | None = None,
) -> models.CausalLM:
    """The fitted model, also written to the stage's directory; resumed from its newest checkpoint if there is one."""
    spec: Fit = getattr(config, name)
    epochs, batch_size = schedule(config, name)
    steps = num_steps(config, name, len(text.train))
    batches = data.train_batches(
        text.train,
        batch_size=batch_size,
        epochs=epochs,
        seed=config.seed + _DATA_SEED,
        buckets=config.data.buckets,
        pad_id=text.eos_id,
        length_window=config.data.length_window,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        beside=store,
    )
    updates = steps // spec.accumulate
    optimizer = adamw(
        learning_rate(spec.lr, steps=updates, schedule=spec.schedule, warmup_steps=spec.warmup_steps),
        weight_decay=spec.weight_decay,
        clip_norm=spec.clip_norm,
        b1=spec.beta1,
        b2=spec.beta2,
        eps=spec.eps,
        accumulate=spec.accumulate,
    )
    directory = workdir.stage(name)
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory / "checkpoints")
    key = jax.random.fold_in(jax.random.key(config.seed), _DATA_SEED)
    state = sharding.shard(init_state(model, optimizer, key), mesh)
    began = time.perf_counter()
    with _StageLog(name, directory / "metrics.jsonl", steps, config.tensorboard) as log:
        state = fit(
            state,
            frozen,
            batches,
            make_step(objective, optimizer, compute_dtype=config.dtype),
            num_steps=steps,
            log=log,
            checkpoints=checkpoints,
            checkpoint_every=config.checkpoint_every,
            place=lambda batch: sharding.shard_rows(batch, mesh),
            stage=name,
        )
    checkpoints.close()
    models.save(state.model, directory, tokenizer=text.tokenizer)
    record = {"steps": steps, "epochs": epochs, "batch_size": batch_size, "examples_sha256": text.train_sha256}
    seconds = {"seconds_of_last_session": time.perf_counter() - began, "compile_seconds": log.compile_seconds}
    workdir.finish(name, record | seconds)
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return state.model


class _StageLog:
    """Metrics to a file, progress to the terminal; opened when the step to resume from is known."""

    def __init__(self, name: str, file: Path, steps: int, tensorboard: bool) -> None:
        self._name, self._path, self._steps, self._tensorboard = name, file, steps, tensorboard
        self._file = self._progress = None
        self.compile_seconds = 0.0  # of this session

    def __enter__(self) -> _StageLog:
        return self

    def rewind(self, step: int) -> None:
        self._file = reporting.MetricsFile(self._path, resume_at=step, tensorboard=self._tensorboard)
        self._progress = reporting.track(self._steps, description=self._name, initial=step).__enter__()

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._file.write(step, **values)
        self.compile_seconds += values.get("compile_seconds", 0.0)
        self._progress.advance(1, loss=values["loss"])

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.__exit__(*exception)
            self._file.close()
