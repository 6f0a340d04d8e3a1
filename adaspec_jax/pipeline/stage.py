"""One stage of the pipeline: its batches, optimiser, checkpoints, metrics and finished directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
import time

import jax

from adaspec_jax import data, models
from adaspec_jax.config import Experiment
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import bytes_limit, compiled_or_needed, lowered, short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.layout import chunking_for, schedule
from adaspec_jax.pipeline.memory import SPARE, Memory, choose
from adaspec_jax.pipeline.program import program, step_arguments
from adaspec_jax.pipeline.stage_log import StageLog
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.training import Checkpoints, Frozen, fit

_ADVICE = "--config.memory=auto gives up what it must, and python -m adaspec_jax.plan says beforehand what would fit"
_DATA_SEED = 2  # added to the config's seed, so that data order and initial weights are drawn apart


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
    model: models.CausalLM,
    frozen: Frozen,
    *,
    config: Experiment,
    text: Text,
    mesh: sharding.Mesh,
    workdir: Workdir,
    store: data.TokenStore | None = None,
    label: str | None = None,
) -> models.CausalLM:
    """The fitted model, also written to the stage's directory; resumed from its newest checkpoint if there is one.

    `model` is what it starts from, in the host's memory; frozen models are on the mesh. `label` names the directory
    and the progress of a stage that is run more than once, each time under another config.
    """
    label = label or name
    epochs, batch_size = schedule(config, name)
    steps = num_steps(config, name, len(text.train))
    index, count = sharding.row_share(mesh)
    batches = data.train_batches(
        text.train,
        batch_size=batch_size,
        epochs=epochs,
        seed=config.seed + _DATA_SEED,
        buckets=config.data.buckets,
        pad_id=text.eos_id,
        length_window=config.data.length_window,
        process_index=index,
        process_count=count,
        beside=store,
    )
    directory = workdir.stage(label)
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory / "checkpoints")
    chunking = chunking_for(config, mesh, jax.default_backend())
    updates = steps // getattr(config, name).accumulate
    shared = {"config": config, "chunking": chunking, "updates": updates, "eos_id": text.eos_id}
    examples = {key: text.record["train"][key] for key in ("examples_sha256", "tokens_sha256")}
    begun = checkpoints.any
    if not begun:
        processes.once(lambda: workdir.begin(label, examples))
    memory = _memory(name, model, frozen, mesh=mesh, begun=begun, workdir=workdir, label=label, **shared)
    made = program(name, **shared, memory=memory)
    with sharding.on_host():
        state = made.begin(model, jax.random.fold_in(jax.random.key(config.seed), _DATA_SEED))
        base = made.beside(Frozen(), model).base
    state = sharding.shard(state, mesh, made.table)
    beside = dataclasses.replace(made.beside(frozen, model), base=sharding.shard(base, mesh))
    began = time.perf_counter()
    log = StageLog(label, directory / "metrics.jsonl", steps, config.tensorboard)
    with log, short_of_memory(f"the {name} stage", _ADVICE), sharding.over(mesh), processes.listening():
        state = fit(
            state,
            beside,
            batches,
            made.step,
            num_steps=steps,
            log=log,
            checkpoints=checkpoints,
            checkpoint_every=config.checkpoint_every,
            place=lambda batch: sharding.shard_rows(batch, mesh),
            stage=label,
            stopping=processes.stopping,
        )
    checkpoints.close()
    fitted = made.end(state, beside)
    whole = processes.fetch(fitted)
    processes.once(lambda: models.save(whole, directory, tokenizer=text.tokenizer))
    record = {"steps": steps, "epochs": epochs, "batch_size": batch_size} | examples
    seconds = {"seconds_of_last_session": time.perf_counter() - began, "compile_seconds": log.compile_seconds}
    record |= seconds | {"memory": dataclasses.asdict(memory)}
    processes.once(lambda: workdir.finish(label, record))
    processes.once(lambda: shutil.rmtree(directory / "checkpoints", ignore_errors=True))
    return fitted


def _memory(
    name: str, model, frozen: Frozen, *, config: Experiment, mesh, begun: bool, workdir, label: str, **shared
) -> Memory:
    """What the stage gives up, decided when it begins: as written, or the first step of the ladder that fits."""
    rows = schedule(config, name)[1] // (mesh.shape["data"] * mesh.shape["fsdp"])
    noted = processes.once(lambda: workdir.decision(f"{label}_memory"))
    if begun and noted is not None:
        memory = Memory(**noted["chosen"])
        return dataclasses.replace(memory, micro_batches=math.gcd(memory.micro_batches, rows))
    backend = jax.default_backend()
    memory = Memory.written(config, name, backend)
    if rows % memory.micro_batches:
        raise UserError(
            f"config.{name}.micro_batches is {memory.micro_batches}, which does not divide the {rows} rows of a batch "
            "that one group of devices gets"
        )
    why = "as written"
    if config.memory == "auto":
        length = config.data.buckets[-1]

        def bytes_of(memory: Memory) -> int:
            made = program(name, config=config, memory=memory, **shared)
            arguments = step_arguments(made, model, frozen, mesh=mesh, rows=schedule(config, name)[1], length=length)
            return compiled_or_needed(lowered(made.step, *arguments, mesh=mesh, backend=backend).lowering)[1]

        limit = bytes_limit(jax.local_devices()[0])
        limit = limit and int(limit * (1 - SPARE))
        limit = min(processes.everyones(limit or 0)) or None  # every process must choose the same
        try:
            memory, size = choose(
                memory, rows=rows, may_adapt=name == "target", limit=limit, bytes_of=functools.cache(bytes_of)
            )
        except UserError as error:
            raise UserError(f"{label}: {error}") from None
        room = f" of {limit / 2**30:.2f}" if limit else ""
        why = f"{memory.in_words()}: a step needs {size / 2**30:.2f}{room} GiB per device"
        processes.say(f"{label}: {why}")
    processes.once(lambda: workdir.decide(f"{label}_memory", {"chosen": dataclasses.asdict(memory), "why": why}))
    return memory
