"""One stage of the pipeline: its batches, optimiser, checkpoints, metrics and finished directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaspec_jax import data, files, models
from adaspec_jax.config import Draft
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import bytes_limit, compiled_or_needed, lowered, short_of_memory
from adaspec_jax.devices.tracing import tracing_steps
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.models.heads import Head
from adaspec_jax.models.stop_head import FOLDER
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.forecast import Forecast
from adaspec_jax.pipeline.layout import row_groups
from adaspec_jax.pipeline.memory import SPARE, Memory, choose
from adaspec_jax.pipeline.program import Program, program, step_arguments
from adaspec_jax.pipeline.stage_log import Silent, StageLog
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.program import called_as
from adaspec_jax.reporting.report import plain
from adaspec_jax.training import Checkpoints, Frozen, NotFinite, State, fit


def fit_stage(
    stage: StageSpec,
    model: models.CausalLM,
    frozen: Frozen,
    *,
    text: Text,
    mesh: sharding.Mesh,
    workdir: Workdir,
    store: data.TokenStore | None = None,
    forecast: Forecast | None = None,
) -> models.CausalLM:
    """The fitted model, also written to the stage's directory; resumed from its newest checkpoint if there is one.

    `model` is what it starts from, in the host's memory; frozen models are on the mesh.
    """
    directory = workdir.stage(stage.label)
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory / "checkpoints")
    begun = checkpoints.any
    if not begun:
        processes.once(lambda: workdir.begin(stage.label, text.examples))
    stored = store.entries if store else {}
    memory = _memory(stage, model, frozen, mesh=mesh, begun=begun, workdir=workdir, stored=stored)
    made = program(stage, memory)
    if isinstance(stage.fit, Draft):
        frozen = dataclasses.replace(frozen, classes_V=data.token_classes(text.tokenizer))
    state, beside = _beginning(made, model, frozen, key=seeds.stage(stage.seed), mesh=mesh)
    began = time.perf_counter()
    settings = dataclasses.asdict(stage.fit)
    log = StageLog(stage.label, directory / "metrics.jsonl", stage.steps, stage.metrics, settings, forecast)
    fit_until = partial(_fit, stage, made, beside, mesh=mesh, checkpoints=checkpoints, into=directory / "profile")
    advice = f"--config.memory=auto gives up what it must, and {called_as('plan')} says beforehand what would fit"
    with log, short_of_memory(f"the {stage.name} stage", advice), sharding.over(mesh), processes.listening():
        batches = _batches(stage, text, mesh, store)
        how = {"checkpoint_every": stage.checkpoint_every, "stopping": processes.stopping, "note": log.note}
        try:
            state, found = fit_until(state, batches, log, stage.steps, traced=stage.traced, **how), None
        except NotFinite as error:  # without the frames that hold the state as it is now
            state, found = None, error.with_traceback(None)
        if found is not None:  # the same steps end in the same bits
            state, _ = _beginning(made, model, frozen, key=seeds.stage(stage.seed), mesh=mesh)
            state = fit_until(state, _batches(stage, text, mesh, store), Silent(), found.step - 1)
            checkpoints.close()
            raise _kept_to_be_looked_into(found, made.end(state, beside), stage, text.tokenizer, workdir)
    checkpoints.close()
    fitted = made.end(state, beside)
    seconds = {"seconds_of_last_session": time.perf_counter() - began, "compile_seconds": log.compile_seconds}
    done = {"steps": stage.steps, "epochs": stage.epochs, "batch_size": stage.batch_size, **text.examples}
    _keep(fitted, workdir, stage.label, text.tokenizer, done | seconds | {"memory": dataclasses.asdict(memory)})
    if processes.stopped():  # at the last step, after which there is none to stop at
        raise Stopped(f"stopped by a signal after the {stage.label} stage, which is finished")
    return fitted


def _batches(stage: StageSpec, text: Text, mesh: sharding.Mesh, store: data.TokenStore | None):
    """This process' rows of every batch, with what the store has of them."""
    index, count = sharding.row_share(mesh)
    return data.train_batches(
        text.rows,
        batch_size=stage.batch_size,
        epochs=stage.epochs,
        seed=seeds.data_order(stage.seed),
        buckets=stage.buckets,
        pad_id=stage.ends.closing,
        length_window=stage.length_window,
        process_index=index,
        process_count=count,
        beside=store,
    )


def _beginning(made: Program, model, frozen: Frozen, *, key: jax.Array, mesh: sharding.Mesh) -> tuple[State, Frozen]:
    """The state before the first step, and what a step only reads, on the mesh."""
    with sharding.on_host():
        state = made.begin(model, key)
        base = made.beside(Frozen(), model).base
    state = sharding.shard(state, mesh, made.table)
    base = sharding.shard(base, mesh)
    return state, dataclasses.replace(made.beside(frozen, model), base=base, classes_V=frozen.classes_V)


def _fit(
    stage: StageSpec,
    made: Program,
    beside: Frozen,
    state: State,
    batches,
    log,
    steps: int,
    *,
    mesh: sharding.Mesh,
    checkpoints: Checkpoints,
    into: Path,
    traced: range | None = None,
    **how,
) -> State:
    """The state after so many steps, of which those of `traced` leave a trace in `into`."""
    where = {"place": lambda batch: sharding.shard_rows(batch, mesh), "stage": stage.label}
    how = {"checkpoint_every": steps + 1, "skipped": stage.skipped} | how
    with tracing_steps(made.step, traced, into, told=processes.say) as step:
        return fit(state, beside, batches, step, num_steps=steps, log=log, checkpoints=checkpoints, **where, **how)


def _kept_to_be_looked_into(
    found: NotFinite, model: models.CausalLM | Head, stage: StageSpec, tokenizer, workdir: Workdir
) -> UserError:
    """What to say of a step that is not finite, whose batch, and the model before it, are written."""
    place = workdir.stage(stage.label) / "nonfinite"
    _write_model(model, workdir, place, tokenizer)
    processes.once(lambda: _write_batch(place, found.batch, {"step": found.step, **found.metrics}))
    words = str(found).removeprefix("the ")
    return UserError(
        f"the {stage.label} stage's {words}; its batch and the model before it are in {place}. Look at the data, or "
        f"lower config.{stage.name}.lr and delete {workdir.stage(stage.label)} to start the stage again; "
        "--config.nonfinite=skip goes on without such batches"
    )


def _write_batch(place: Path, batch: dict[str, Any], about: dict[str, Any]) -> None:
    with files.replacing(place / "batch.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **batch)
    files.write_json(place / "step.json", plain(about, nonfinite_to_null=True))


def _keep(fitted: models.CausalLM, workdir: Workdir, label: str, tokenizer, record: dict[str, Any]) -> None:
    """The model as a directory, then the record that says it is finished, then no checkpoints any more."""
    _write_model(fitted, workdir, workdir.stage(label), tokenizer)
    processes.once(lambda: workdir.finish(label, record))
    processes.once(lambda: shutil.rmtree(workdir.stage(label) / "checkpoints", ignore_errors=True))


def _write_model(fitted: models.CausalLM | Head, workdir: Workdir, directory: Path, tokenizer) -> None:
    whole = processes.fetch(fitted)
    if isinstance(whole, models.StopHead):
        sha256 = processes.once(lambda: workdir.weights_sha256("draft"))
        processes.once(lambda: models.save_stop_head(whole, directory / FOLDER, draft=sha256))
    elif isinstance(whole, Head):
        sha256 = processes.once(lambda: workdir.weights_sha256("target"))
        processes.once(lambda: models.save_head(whole, directory, fingerprint=sha256))
    else:
        processes.once(lambda: models.save(whole, directory, tokenizer=tokenizer))


def _memory(
    stage: StageSpec, model, frozen: Frozen, *, mesh: sharding.Mesh, begun: bool, workdir: Workdir, stored: dict
) -> Memory:
    """What the stage gives up, decided when it begins: as written, or the first step of the ladder that fits."""
    rows, noted_as = stage.batch_size // row_groups(mesh), f"{stage.label}_memory"
    noted = processes.once(lambda: workdir.decision(noted_as))
    if begun and noted is not None:
        memory = Memory(**noted["chosen"])
        return dataclasses.replace(memory, micro_batches=math.gcd(memory.micro_batches, rows))
    memory, why = stage.memory, "as written"
    if rows % memory.micro_batches:
        raise UserError(
            f"config.{stage.name}.micro_batches is {memory.micro_batches}, which does not divide the {rows} rows of a "
            "batch that one group of devices gets"
        )
    if stage.gives_up:
        memory, why = _given_up(stage, model, frozen, mesh=mesh, rows=rows, stored=stored)
        processes.say(f"{stage.label}: {why}")
    processes.once(lambda: workdir.decide(noted_as, {"chosen": dataclasses.asdict(memory), "why": why}))
    return memory


def _given_up(
    stage: StageSpec, model, frozen: Frozen, *, mesh: sharding.Mesh, rows: int, stored: dict
) -> tuple[Memory, str]:
    """What makes the stage fit its devices, and why; `rows` of a batch that one group of devices gets.

    `stored`: what a store has beside every token (`TokenStore.entries`).
    """

    @functools.cache
    def bytes_of(memory: Memory) -> int:
        made = program(stage, memory)
        sizes = {"rows": stage.batch_size, "length": stage.buckets[-1], "stored": stored}
        arguments = step_arguments(made, model, frozen, mesh=mesh, **sizes)
        lowering = lowered(made.step, *arguments, mesh=mesh, backend=jax.default_backend()).lowering
        return compiled_or_needed(lowering)[1]

    limit = bytes_limit(jax.local_devices()[0])
    limit = limit and int(limit * (1 - SPARE))
    limit = min(processes.everyones(limit or 0)) or None  # every process must choose the same
    asked = {"rows": rows, "may_adapt": stage.name == "target", "limit": limit, "bytes_of": bytes_of}
    try:
        memory, size = choose(stage.memory, **asked)
    except UserError as error:
        raise UserError(f"{stage.label}: {error}") from None
    room = f" of {limit / 2**30:.2f}" if limit else ""
    return memory, f"{memory.in_words()}: a step needs {size / 2**30:.2f}{room} GiB per device"
