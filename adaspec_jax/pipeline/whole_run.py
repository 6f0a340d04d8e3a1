"""The paper in order: fine-tune the target, distil the reference, distil the draft selectively, measure all drafts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from adaspec_jax import __version__, data, models, reporting
from adaspec_jax.config import Draft, Experiment, Target, flatten
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.measure import MEASURED_HOW, measure, report_fields
from adaspec_jax.pipeline import answers, teacher
from adaspec_jax.pipeline.arms import Arm, as_stage, checked_arms
from adaspec_jax.pipeline.coloured import decoded_tokens, selected_tokens
from adaspec_jax.pipeline.layout import chunking_for, mesh_for, schedule, table_of
from adaspec_jax.pipeline.memory import Memory
from adaspec_jax.pipeline.stage import fit_stage, num_steps
from adaspec_jax.pipeline.text import read_text
from adaspec_jax.pipeline.workdir import Workdir, stages_of
from adaspec_jax.reporting.wording import EQUAL_DATA
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.divergences import find_divergence

BATCH_ROWS_SHOWN = 4
_SALT = {"target": 0, "draft": 1}  # folded into the seed's key for initial weights
_EVALUATION_SEED = 3  # added to the seed


def run(config: Experiment, directory: str | Path, arms: Mapping[str, Arm] | None = None) -> dict[str, Any]:
    """The report of the finished run; finished stages are restored, an interrupted one goes on where it stopped.

    `arms`: further drafts by name, each distilled under its own settings from the same start by the same target (and
    measured on the same prompts), below DIR/<name>.
    """
    if config.accelerator not in ("any", backend := jax.default_backend()):
        raise UserError(f'config.accelerator is "{config.accelerator}", and jax finds no more than {backend} here')
    workdir = Workdir(directory)
    arms = checked_arms(config, arms or {})
    settings = {f"arm {name}": flatten(arm) for name, arm in arms.items()}
    processes.agree(flatten(config) | settings | {"workdir": str(directory), "version": __version__}, "config")
    processes.once(lambda: workdir.claim(config, arms))
    if (report := processes.once(lambda: workdir.finished_report(config, list(arms)))) is not None:
        return report
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str((workdir.path / "compilation_cache").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return _Run(config, workdir, arms).everything()


class _Run:
    """One walk through the stages: what they share, and nothing that outlives it."""

    def __init__(self, config: Experiment, workdir: Workdir, arms: Mapping[str, Arm]) -> None:
        self.config, self.workdir, self.arms = config, workdir, arms
        self.stages = stages_of(config)
        rows = {f"the arm {name}": schedule(*as_stage(config, arm))[1] for name, arm in arms.items()}
        self.mesh = mesh_for(config, more=rows)
        if self.mesh.size > 1:
            processes.say(f"mesh: {sharding.in_words(self.mesh)}")
        self.chunking = chunking_for(config, self.mesh, jax.default_backend())
        self.text = read_text(config, workdir)
        processes.agree(self.text.record | {"tokens": self.text.tokens_sha256}, "data")

    def everything(self) -> dict[str, Any]:
        config = self.config
        self._check_same_examples()
        for stage in self.stages:
            if stage != "target" or config.target.epochs:
                num_steps(config, stage, len(self.text.train))  # whatever cannot be done is said before anything is
        for arm in self.arms.values():
            num_steps(*as_stage(self.config, arm), len(self.text.train))
        teacher.check(config, self.text)
        base = self._initial(config.draft, "draft")
        target = self._target(base)
        base = self._with_vocabulary_of(target, base)
        if config.answers.source == "target":
            advice = "lower config.reference.batch_size or config.answers.max_new_tokens"
            with short_of_memory("sampling the target's answers", advice), sharding.over(self.mesh):
                self.text = answers.targets_own(config, self.workdir, self.text, target, self.mesh)
        store = None
        if not all(map(self.workdir.finished, (*self.stages, *self.arms))):
            with sharding.over(self.mesh):
                store = teacher.open_store(
                    config, self.workdir, self.text, target, self.mesh, self.chunking, passes=self._passes()
                )
        seen = teacher.taught_by(target, store)
        untrained = self._placed("draft", base.astype(config.dtype))
        drafts, reference = {"base": untrained}, None
        if "reference" in self.stages:
            reference = drafts["reference"] = self._fitted("reference", base, Frozen(target=seen), store)
        if store and reference:
            shared = {"target": target, "reference": reference, "base": untrained, "chunking": self.chunking}
            divergence = find_divergence(config.draft.divergence)
            with sharding.over(self.mesh):
                teacher.add_reference(
                    store, config, self.workdir, self.text, self.mesh, divergence=divergence, **shared
                )
        for name, arm in {**self.arms, "draft": config.draft}.items():
            drafts[name] = self._distilled(name, arm, base, seen, reference, store)
        advice = "all stages are kept; lower config.evaluation.batch_size or .max_new_tokens"
        with short_of_memory("measuring the drafts", advice), sharding.over(self.mesh):
            return self._report(target.unstacked(), {name: model.unstacked() for name, model in drafts.items()})

    def _distilled(self, name: str, arm: Arm, base, seen, reference, store) -> models.CausalLM:
        """A draft under its own settings, from the same start as all others."""
        config, stage = as_stage(self.config, arm)
        selects_by_reference = stage == "draft" and arm.reference == "trained"
        stored = store is not None and selects_by_reference and arm.divergence == self.config.draft.divergence
        frozen = Frozen(target=seen, reference=reference if selects_by_reference and not stored else None)
        beside = store if stored or store is None else store.without(teacher.REFERENCE)
        return self._fitted(stage, base, frozen, beside, config=config, label=name)

    def _passes(self) -> float:
        """Over the text, that are still to be trained."""
        stages = {name: as_stage(self.config, arm) for name, arm in self.arms.items()}
        stages |= {name: (self.config, name) for name in self.stages if name != "target"}
        return sum(schedule(*stage)[0] for name, stage in stages.items() if not self.workdir.finished(name))

    def _check_same_examples(self) -> None:
        """`UserError` where a stage was trained, so far or to its end, on other text than the data key names now."""
        for stage in (*self.stages, *self.arms):
            record, now = self.workdir.trained_on(stage), self.text.record["train"]
            for key, what in (("examples_sha256", "examples have"), ("tokens_sha256", "examples' tokens have")):
                if record.get(key, now[key]) != now[key]:
                    raise UserError(
                        f"the training {what} changed since {self.workdir.stage(stage)} was made; "
                        "use another --workdir, or restore the data"
                    )

    def _initial(self, spec: Target | Draft, name: str) -> models.CausalLM:
        """The stock model a stage starts from, in float32 on the host, with vocabulary rows no token owns ruled out."""
        if spec.init == "random":
            begin = self.text.tokenizer.bos_token_id
            special = {"bos_token_id": self.text.eos_id if begin is None else begin, "eos_token_id": self.text.eos_id}
            with sharding.on_host():
                key = jax.random.fold_in(jax.random.key(self.config.seed), _SALT[name])
                model = models.build(spec.architecture.hf_config() | special, key)
        else:
            self.text.check_own_tokenizer(spec.init, name)
            with sharding.on_host():
                model = models.load(spec.init)
            data.check_fits(self.text.tokenizer, model.config.vocab_size, f"the {name} {spec.init}")
        model = self._prepared(model, f"the {name} {spec.init}")
        processes.say(f"{name}: {model.num_params:,} parameters from {spec.init}")
        return model

    def _placed(self, name: str, model: models.CausalLM) -> models.CausalLM:
        """On the mesh, with its layers as the stages read them."""
        if Memory.written(self.config, name, jax.default_backend()).scanned:
            model = model.stacked()
        return sharding.shard(model, self.mesh, table_of(self.config, name))

    def _prepared(self, model: models.CausalLM, name: str) -> models.CausalLM:
        """Padding rows ruled out, and the kernel chosen; `UserError` where text is longer than the model's context."""
        evaluation = self.config.evaluation
        prompts = self.text.held_out[: evaluation.num_prompts]
        asked = max(row.prompt_length for row in prompts) + evaluation.max_new_tokens
        model.check_context(max(len(row.tokens) for row in self.text.train), name, "lower data.max_length")
        model.check_context(asked, name, "lower evaluation.max_new_tokens or data.max_prompt_length")
        model = model.with_vocabulary(data.rows_needed(self.text.tokenizer))
        return model.with_attention(self.config.attention, self.config.dtype)

    def _with_vocabulary_of(self, target: models.CausalLM, draft: models.CausalLM) -> models.CausalLM:
        """The draft with as many vocabulary rows as its target; only rows that no token owns may differ."""
        ours, theirs = draft.config.vocab_size, target.config.vocab_size
        if ours == theirs:
            return draft
        if self.config.draft.init == "random":
            raise UserError(
                f"the target has vocab_size {theirs} and the draft {ours}: a draft must share its target's vocabulary; "
                "set draft.architecture.vocab_size or choose another pair"
            )
        with sharding.on_host():
            return draft.with_vocabulary_size(theirs)

    def _target(self, draft: models.CausalLM) -> models.CausalLM:
        spec = self.config.target
        if self.workdir.finished("target"):
            return self._restored("target")
        if spec.epochs == 0 and spec.init == "random":
            raise UserError("target.epochs is 0 and target.init is random: an untrained target teaches nothing")
        model = self._initial(spec, "target")
        self._with_vocabulary_of(model, draft)  # said before anything is fitted
        if spec.epochs == 0:
            whole = processes.fetch(model)
            processes.once(lambda: models.save(whole, self.workdir.stage("target"), tokenizer=self.text.tokenizer))
            processes.once(lambda: self.workdir.finish("target", {"steps": 0, "init": str(spec.init)}))
            return self._placed("target", model.astype(self.config.dtype))
        return self._fitted("target", model, Frozen())

    def _fitted(
        self, stage: str, model: models.CausalLM, frozen: Frozen, store=None, *, config=None, label: str | None = None
    ) -> models.CausalLM:
        """The stage's finished model in the compute type: restored, resumed or fitted now."""
        name = label or stage
        if self.workdir.finished(name):
            processes.say(f"{name}: finished earlier")
            return self._restored(stage, name)
        shared = {"text": self.text, "mesh": self.mesh, "workdir": self.workdir, "store": store, "label": name}
        return fit_stage(stage, model, frozen, config=config or self.config, **shared).astype(self.config.dtype)

    def _restored(self, stage: str, label: str | None = None) -> models.CausalLM:
        with sharding.on_host():
            model = self._prepared(self.workdir.load(label or stage, dtype=self.config.dtype), f"the {label or stage}")
        return self._placed(stage, model)

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
        baselines = [name for name in ("reference", EQUAL_DATA) if name in drafts]
        pairs = [("draft", other) for other in (*baselines, "base")] + [(other, "base") for other in baselines[:1]]
        pairs += [(arm, other) for arm in self.arms for other in baselines if other != arm]
        report = {
            "task": self.text.record["train"]["task"],
            "settings": dataclasses.asdict(config) | {"eos_id": self.text.eos_id, "measured": MEASURED_HOW},
            "environment": reporting.environment(jax.devices()[0].device_kind) | {"devices": jax.device_count()},
            "data": self.text.record,
            "models": {name: model.num_params for name, model in {"target": target, **drafts}.items()},
            "stages": {name: self.workdir.finished(name) for name in (*self.stages, *self.arms)},
            "teacher": self._teacher(),
            **report_fields(measured, plain, resamples=evaluation.resamples, pairs=pairs),
        }
        counts = {name: result.counts.as_lists() for name, result in measured.items()}
        processes.once(lambda: reporting.write_json(self.workdir.path / "counts.json", counts))
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
        sample = measured["draft"].sample
        shown = (*self.stages, *self.arms)
        page = {
            "curves": {name: reporting.read_metrics(self.workdir.stage(name) / "metrics.jsonl") for name in shown},
            "tokens_decoded": decoded_tokens(self.text.tokenizer, sample, 0, prompts[0].prompt_length),
            "tokens_selected": self._selected(target, drafts),
        }
        processes.once(lambda: reporting.write_html(self.workdir.path / "report.html", report, **page))

    def _selected(self, target, drafts) -> list[list[dict]] | None:
        """Rows with what the draft would be trained on now; None where that is not the rule `selected_tokens` shows."""
        spec = self.config.draft
        ordinary = spec.selection == "top" and spec.scope == "global" and spec.reference == "trained"
        if not ordinary or self.config.answers.source != "dataset" or "reference" not in drafts:
            return None
        count = min(BATCH_ROWS_SHOWN, len(self.text.train))
        shown = {"batch_size": count, "epochs": 1, "seed": 0, "buckets": self.config.data.buckets}
        batch = Batch(**next(data.train_batches(self.text.train[:count], **shown, pad_id=self.text.eos_id)))
        return selected_tokens(
            self.text.tokenizer,
            Frozen(target=target, reference=drafts["reference"]),
            drafts["draft"],
            batch,
            divergence=find_divergence(self.config.draft.divergence),
            fraction=spec.final_fraction or spec.fraction,
        )
