"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import __version__, data, models, processes, reporting, sharding, teacher
from adaspec_jax.config import Draft, Experiment, Target, flatten
from adaspec_jax.errors import UserError
from adaspec_jax.measure import MEASURED_HOW, measure, report_fields
from adaspec_jax.programs import Memory, chunking_for, mesh_for, table_of
from adaspec_jax.stages import fit_stage, num_steps
from adaspec_jax.text import read_text
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.divergences import DIVERGENCES
from adaspec_jax.views import decoded_tokens, selected_tokens
from adaspec_jax.workdir import STAGES, Workdir

BATCH_ROWS_SHOWN = 4
_SALT = {"target": 0, "draft": 1}  # folded into the seed's key for initial weights
_EVALUATION_SEED = 3  # added to the seed


def run(config: Experiment, directory: str | Path) -> dict[str, Any]:
    """The report of the finished run; finished stages are restored, an interrupted one goes on where it stopped."""
    if config.accelerator not in ("any", backend := jax.default_backend()):
        raise UserError(f'config.accelerator is "{config.accelerator}", and jax finds no more than {backend} here')
    workdir = Workdir(directory)
    processes.agree(flatten(config) | {"workdir": str(directory), "version": __version__}, "config")
    processes.once(lambda: workdir.claim(config))
    if (report := processes.once(lambda: workdir.finished_report(config))) is not None:
        return report
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str((workdir.path / "compilation_cache").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return _Run(config, workdir).everything()


class _Run:
    """One walk through the stages: what they share, and nothing that outlives it."""

    def __init__(self, config: Experiment, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.mesh = mesh_for(config)
        if self.mesh.size > 1:
            processes.say(f"mesh: {sharding.in_words(self.mesh)}")
        self.chunking = chunking_for(config, self.mesh, jax.default_backend())
        self.text = read_text(config, workdir)
        processes.agree(self.text.record | {"tokens": self.text.tokens_sha256}, "data")

    def everything(self) -> dict[str, Any]:
        config = self.config
        self._check_same_examples()
        for stage in STAGES:
            if stage != "target" or config.target.epochs:
                num_steps(config, stage, len(self.text.train))  # whatever cannot be done is said before anything is
        teacher.check(config, self.text)
        base = self._initial(config.draft, "draft")
        target = self._target(base.config.vocab_size)
        with sharding.over(self.mesh):
            store = teacher.open_store(config, self.workdir, self.text, target, self.mesh, self.chunking)
        seen = teacher.taught_by(target, store)
        reference = self._fitted("reference", base, Frozen(target=seen), store)
        untrained = self._placed("draft", base.astype(config.dtype))
        if store:
            shared = {"target": target, "reference": reference, "base": untrained, "chunking": self.chunking}
            divergence = DIVERGENCES[config.draft.divergence]
            with sharding.over(self.mesh):
                teacher.add_reference(
                    store, config, self.workdir, self.text, self.mesh, divergence=divergence, **shared
                )
        frozen = Frozen(target=seen, reference=None if store else reference)
        draft = self._fitted("draft", base, frozen, store)
        drafts = {"base": untrained, "reference": reference, "draft": draft}
        with sharding.over(self.mesh):
            return self._report(target.unstacked(), {name: model.unstacked() for name, model in drafts.items()})

    def _check_same_examples(self) -> None:
        """`UserError` where a finished stage was trained on other text than what the data key names now."""
        for stage in STAGES:
            record = self.workdir.finished(stage) or {}
            if record.get("examples_sha256", self.text.train_sha256) != self.text.train_sha256:
                raise UserError(
                    f"the training examples have changed since {self.workdir.stage(stage)} was made; "
                    "use another --workdir, or restore the data"
                )

    def _initial(self, spec: Target | Draft, name: str) -> models.CausalLM:
        """The stock model a stage starts from, in float32 on the host, with vocabulary rows no token owns ruled out."""
        if spec.init == "random":
            special = dict.fromkeys(("bos_token_id", "eos_token_id"), self.text.eos_id)
            with sharding.on_host():
                key = jax.random.fold_in(jax.random.key(self.config.seed), _SALT[name])
                model = models.build(spec.architecture.hf_config() | special, key)
        else:
            self.text.check_own_tokenizer(spec.init, name)
            with sharding.on_host():
                model = models.load(spec.init)
            data.check_fits(self.text.tokenizer, model.config.vocab_size, f"the {name} {spec.init}")
        model = self._prepared(model)
        processes.say(f"{name}: {model.num_params:,} parameters from {spec.init}")
        return model

    def _placed(self, name: str, model: models.CausalLM) -> models.CausalLM:
        """On the mesh, with its layers as the stages read them."""
        if Memory.written(self.config, name, jax.default_backend()).scanned:
            model = model.stacked()
        return sharding.shard(model, self.mesh, table_of(self.config, name))

    def _prepared(self, model: models.CausalLM) -> models.CausalLM:
        model = model.with_vocabulary(len(self.text.tokenizer))
        return model.with_attention(self.config.attention, self.config.dtype)

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
            whole = processes.fetch(model)
            processes.once(lambda: models.save(whole, self.workdir.stage("target"), tokenizer=self.text.tokenizer))
            processes.once(lambda: self.workdir.finish("target", {"steps": 0, "init": str(spec.init)}))
            return self._placed("target", model.astype(self.config.dtype))
        return self._fitted("target", model, Frozen())

    def _fitted(self, name: str, model: models.CausalLM, frozen: Frozen, store=None) -> models.CausalLM:
        """The stage's finished model in the compute type: restored, resumed or fitted now."""
        if self.workdir.finished(name):
            processes.say(f"{name}: finished earlier")
            return self._restored(name)
        shared = {"config": self.config, "text": self.text, "mesh": self.mesh, "workdir": self.workdir, "store": store}
        return fit_stage(name, model, frozen, **shared).astype(self.config.dtype)

    def _restored(self, name: str) -> models.CausalLM:
        with sharding.on_host():
            model = self._prepared(self.workdir.load(name, dtype=self.config.dtype))
        return self._placed(name, model)

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
                seed=config.seed + _EVALUATION_SEED,
                place=lambda rows: sharding.shard_rows(sharding.my_rows(rows, self.mesh), self.mesh),
                advance=progress.advance,
            )
        pairs = [("draft", "reference"), ("reference", "base"), ("draft", "base")]
        report = {
            "task": self.text.record["train"]["task"],
            "settings": dataclasses.asdict(config) | {"eos_id": self.text.eos_id, "measured": MEASURED_HOW},
            "environment": reporting.environment(jax.devices()[0].device_kind) | {"devices": jax.device_count()},
            "data": self.text.record,
            "models": {name: model.num_params for name, model in {"target": target, **drafts}.items()},
            "stages": {name: self.workdir.finished(name) for name in STAGES},
            "teacher": self._teacher(),
            **report_fields(measured, plain, resamples=evaluation.resamples, pairs=pairs),
        }
        file = self.workdir.path / "report.json"
        processes.once(lambda: reporting.write_json(file, report))
        report = json.loads(file.read_text())  # what a later run will find
        self._write_html(report, target, drafts, measured, prompts)
        return report

    def _teacher(self) -> dict[str, Any] | None:
        chosen = self.workdir.decision("teacher")
        if chosen is None or chosen["choice"] != "top_k":
            return chosen
        return {**chosen, "error": self.workdir.decision("teacher_error")}

    def _write_html(self, report, target, drafts, measured, prompts) -> None:
        count = min(BATCH_ROWS_SHOWN, len(self.text.train))
        shown = {"batch_size": count, "epochs": 1, "seed": 0, "buckets": self.config.data.buckets}
        batch = Batch(**next(data.train_batches(self.text.train[:count], **shown, pad_id=self.text.eos_id)))
        selected = selected_tokens(
            self.text.tokenizer,
            Frozen(target=target, reference=drafts["reference"]),
            drafts["draft"],
            batch,
            divergence=DIVERGENCES[self.config.draft.divergence],
            fraction=self.config.draft.fraction,
        )
        sample = measured["draft"].sample
        page = {
            "curves": {name: reporting.read_metrics(self.workdir.stage(name) / "metrics.jsonl") for name in STAGES},
            "tokens_decoded": decoded_tokens(self.text.tokenizer, sample, 0, prompts[0].prompt_length),
            "tokens_selected": selected,
        }
        processes.once(lambda: reporting.write_html(self.workdir.path / "report.html", report, **page))
