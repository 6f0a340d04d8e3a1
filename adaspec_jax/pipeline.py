"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaspec_jax import data, models, reporting, sharding
from adaspec_jax.config import Draft, Experiment, Fit, Target, draft_schedule
from adaspec_jax.errors import UserError
from adaspec_jax.measure import MEASURED_HOW, measure, report_fields
from adaspec_jax.text import read_text
from adaspec_jax.training import (
    Batch,
    Checkpoints,
    Frozen,
    adamw,
    fit,
    init_state,
    learning_rate,
    make_step,
    objectives,
)
from adaspec_jax.training.divergences import DIVERGENCES
from adaspec_jax.views import decoded_tokens, selected_tokens
from adaspec_jax.workdir import STAGES, Workdir, settings

BATCH_ROWS_SHOWN = 4
# What each stage's random numbers are split from, besides the config's seed.
_SALT = {"target": 0, "draft": 1, "data": 2, "evaluation": 3}


def run(config: Experiment, directory: str | Path) -> dict[str, Any]:
    """The report of the finished run; finished stages are restored, an interrupted one goes on where it stopped."""
    workdir = Workdir(directory)
    workdir.claim(config)
    if (report := _finished_report(config, workdir)) is not None:
        return report
    jax.config.update("jax_compilation_cache_dir", str((workdir.path / "compilation_cache").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return _Run(config, workdir).everything()


def _finished_report(config: Experiment, workdir: Workdir) -> dict[str, Any] | None:
    """The report of an earlier run, if it is of this very config and nothing is missing."""
    file = workdir.path / "report.json"
    if not (file.is_file() and (workdir.path / "report.html").is_file() and all(map(workdir.finished, STAGES))):
        return None
    report = json.loads(file.read_text())
    wanted = settings(config)
    same = all(report["settings"].get(key) == wanted[key] for key in wanted if key != "mesh")
    return report if same else None


class _Run:
    """One walk through the stages: what they share, and nothing that outlives it."""

    def __init__(self, config: Experiment, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.mesh = _mesh(config)
        self.text = read_text(config, workdir)

    def everything(self) -> dict[str, Any]:
        config = self.config
        base = self._initial(config.draft, "draft")
        target = self._target(base.config.vocab_size)
        reference = self._fitted(
            "reference",
            config.reference,
            objectives.distill(DIVERGENCES[config.reference.divergence]),
            base,
            Frozen(target=target),
        )
        epochs, batch_size = draft_schedule(config.draft)
        selective = objectives.selective_distill(
            DIVERGENCES[config.draft.divergence],
            fraction=config.draft.fraction,
            normalize=config.draft.normalize,
            scope=config.draft.scope,
            shards=config.draft.shards,
        )
        frozen = Frozen(target=target, reference=reference)
        draft = self._fitted("draft", config.draft, selective, base, frozen, epochs=epochs, batch_size=batch_size)
        return self._report(target, {"base": base, "reference": reference, "draft": draft})

    def _initial(self, spec: Target | Draft, name: str) -> models.CausalLM:
        """The stock model a stage starts from, on the mesh, with vocabulary rows no token owns ruled out."""
        if spec.init == "random":
            key = jax.random.fold_in(jax.random.key(self.config.seed), _SALT[name])
            architecture = spec.architecture.hf_config() | {
                "eos_token_id": self.text.eos_id,
                "bos_token_id": self.text.eos_id,
            }
            model = models.build(architecture, key, dtype=self.config.dtype)
        else:
            model = models.load(spec.init, dtype=self.config.dtype)
            self.text.check_own_tokenizer(spec.init, name)
            data.check_fits(self.text.tokenizer, model.config.vocab_size, f"the {name} {spec.init}")
        model = model.with_vocabulary(len(self.text.tokenizer))
        print(f"{name}: {model.num_params:,} parameters from {spec.init}", flush=True)
        return sharding.shard(model, self.mesh)

    def _restored(self, name: str) -> models.CausalLM:
        model = self.workdir.load(name, dtype=self.config.dtype).with_vocabulary(len(self.text.tokenizer))
        return sharding.shard(model, self.mesh)

    def _target(self, vocab_size: int) -> models.CausalLM:
        spec = self.config.target
        if self.workdir.finished("target"):
            return self._restored("target")
        if spec.epochs == 0 and spec.init == "random":
            raise UserError("target.epochs is 0 and target.init is random: an untrained target teaches nothing")
        model = self._initial(spec, "target")
        if model.config.vocab_size != vocab_size:
            raise UserError(
                f"the target has vocab_size {model.config.vocab_size} and the draft {vocab_size}: "
                "a draft must share its target's vocabulary; set draft.architecture.vocab_size or choose another pair"
            )
        if spec.epochs == 0:
            self.workdir.finish("target", {"steps": 0, "source": str(spec.init)})
            return model
        return self._fitted("target", spec, objectives.fine_tune(), model, Frozen())

    def _fitted(self, name, spec: Fit, objective, model, frozen, *, epochs=None, batch_size=None) -> models.CausalLM:
        """The stage's finished model: restored, resumed or fitted now."""
        if self.workdir.finished(name):
            print(f"{name}: finished earlier", flush=True)
            return self._restored(name)
        epochs = spec.epochs if epochs is None else epochs
        batch_size = batch_size or spec.batch_size
        steps = data.num_steps(len(self.text.train), batch_size, epochs)
        batches = data.train_batches(
            self.text.train,
            batch_size=batch_size,
            epochs=epochs,
            seed=self.config.seed + _SALT["data"],
            buckets=self.config.data.buckets,
            pad_id=self.text.eos_id,
            length_window=self.config.data.length_window,
        )
        updates = max(steps // spec.accumulate, 1)
        rate = learning_rate(spec.lr, steps=updates, schedule=spec.schedule, warmup_steps=spec.warmup_steps)
        optimizer = adamw(
            rate,
            weight_decay=spec.weight_decay,
            clip_norm=spec.clip_norm,
            b1=spec.beta1,
            b2=spec.beta2,
            eps=spec.eps,
            accumulate=spec.accumulate,
        )
        directory = self.workdir.stage(name)
        directory.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(directory / "checkpoints")
        state = init_state(model, optimizer, jax.random.fold_in(jax.random.key(self.config.seed), _SALT["data"]))
        state = sharding.shard(state, self.mesh)
        log = _StageLog(name, directory / "metrics.jsonl", steps, self.config.tensorboard)
        began = time.perf_counter()
        with log:
            state = fit(
                state,
                frozen,
                batches,
                make_step(objective, optimizer),
                num_steps=steps,
                log=log,
                checkpoints=checkpoints,
                checkpoint_every=self.config.checkpoint_every,
                place=lambda batch: sharding.shard_rows(batch, self.mesh),
                stage=name,
            )
        models.save(state.model, directory, tokenizer=self.text.tokenizer)
        record = {"steps": steps, "epochs": epochs, "batch_size": batch_size}
        self.workdir.finish(name, record | {"seconds_of_last_session": time.perf_counter() - began})
        checkpoints.close()
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        return state.model

    def _report(self, target, drafts) -> dict[str, Any]:
        config, evaluation = self.config, self.config.evaluation
        prompts = self.text.held_out[: evaluation.num_prompts]
        batches = list(
            data.prompt_batches(prompts, evaluation.batch_size, buckets=config.data.buckets, pad_id=self.text.eos_id)
        )
        with reporting.track(len(prompts), description="evaluation", unit="prompt") as progress:
            measured, plain = measure(
                target,
                drafts,
                batches,
                draft_length=evaluation.draft_length,
                max_new_tokens=evaluation.max_new_tokens,
                temperature=evaluation.temperature,
                eos_id=self.text.eos_id,
                seed=config.seed + _SALT["evaluation"],
                place=lambda rows: sharding.shard_rows(rows, self.mesh),
                advance=progress.advance,
            )
        pairs = [("draft", "reference"), ("reference", "base"), ("draft", "base")]
        report = {
            "task": config.data.task,
            "settings": settings(config) | {"eos_id": self.text.eos_id, "measured": MEASURED_HOW},
            "environment": reporting.environment(jax.devices()[0].device_kind) | {"devices": jax.device_count()},
            "data": self.text.record,
            "models": {name: model.num_params for name, model in {"target": target, **drafts}.items()},
            "stages": {name: self.workdir.finished(name) for name in STAGES},
            **report_fields(measured, plain, resamples=evaluation.resamples, pairs=pairs),
        }
        self._write_html(report, target, drafts, measured, prompts)
        reporting.write_json(self.workdir.path / "report.json", report)
        return report

    def _write_html(self, report, target, drafts, measured, prompts) -> None:
        count = min(BATCH_ROWS_SHOWN, len(self.text.train))
        shown = {"batch_size": count, "epochs": 1, "seed": 0, "buckets": self.config.data.buckets}
        batch = Batch(**next(data.train_batches(self.text.train[:count], **shown, pad_id=self.text.eos_id)))
        reporting.write_html(
            self.workdir.path / "report.html",
            report,
            curves={name: reporting.read_metrics(self.workdir.stage(name) / "metrics.jsonl") for name in STAGES},
            tokens_decoded=decoded_tokens(self.text.tokenizer, measured["draft"].sample, 0, prompts[0].prompt_length),
            tokens_selected=selected_tokens(
                self.text.tokenizer,
                Frozen(target=target, reference=drafts["reference"]),
                drafts["draft"],
                batch,
                divergence=DIVERGENCES[self.config.draft.divergence],
                fraction=self.config.draft.fraction,
            ),
        )


class _StageLog:
    """Metrics to a file, progress to the terminal; opened when the step to resume from is known."""

    def __init__(self, name: str, file: Path, steps: int, tensorboard: bool) -> None:
        self._name, self._path, self._steps, self._tensorboard = name, file, steps, tensorboard
        self._file = self._progress = None

    def __enter__(self) -> _StageLog:
        return self

    def rewind(self, step: int) -> None:
        self._file = reporting.MetricsFile(self._path, resume_at=step, tensorboard=self._tensorboard)
        self._progress = reporting.track(self._steps, description=self._name, initial=step).__enter__()
        self._last = time.perf_counter()

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(step, **values)
        self._progress.advance(1, loss=values["loss"])

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.__exit__(*exception)
            self._file.close()


def _mesh(config: Experiment):
    """As many devices along `data` as divide every batch, where the config leaves it open."""
    mesh = config.mesh
    share = mesh.fsdp * mesh.tensor
    if mesh.data > 0:
        sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    else:
        batches = [config.reference.batch_size, draft_schedule(config.draft)[1], config.evaluation.batch_size]
        if config.target.epochs:
            batches.append(config.target.batch_size)
        rows = math.gcd(*batches) // mesh.fsdp or 1
        most = max(jax.device_count() // share, 1)
        sizes = (max(n for n in range(1, most + 1) if rows % n == 0), mesh.fsdp, mesh.tensor)
    try:
        made = sharding.make_mesh(*sizes)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    if np.prod(sizes) > 1:
        print(f"mesh: data {sizes[0]}, fsdp {sizes[1]}, tensor {sizes[2]}", flush=True)
    return made
