"""The report of a run: all drafts measured on the same prompts, in three files and a page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from adaspec_jax import data, files, models, reporting
from adaspec_jax.config import MODEL, QUALIFIER, Draft, Evaluation
from adaspec_jax.decoding import Sampling
from adaspec_jax.devices import processes, sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.measuring.evidence import Evidence
from adaspec_jax.measuring.measure import MEASURED_HOW, PROBE_LENGTH, Contender, measure, report_fields
from adaspec_jax.measuring.placing import for_decoding
from adaspec_jax.measuring.products import chosen
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.beginnings import Start
from adaspec_jax.pipeline.coloured import labelled_tokens, selected_tokens
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import STAGES, Workdir
from adaspec_jax.reporting.wording import EQUAL_DATA
from adaspec_jax.training import Batch, Frozen

BATCH_ROWS_SHOWN = 4


def write_report(
    start: Start,
    target: models.CausalLM,
    drafts: Mapping[str, models.CausalLM],
    *,
    evaluation: Evaluation,
    settings: Mapping[str, Any],
    on_data_set: bool,
) -> dict[str, Any]:
    """The report as a later run will find it: drafts by label measured against the target, tests, settings, stages.

    `settings` are recorded as they are; `on_data_set`: the drafts were distilled on the data set's answers.
    """
    text, workdir = start.text, start.workdir
    advice = "all stages are kept; lower config.evaluation.batch_size or .max_new_tokens"
    with short_of_memory("measuring the drafts", advice), sharding.over(start.mesh):
        products = chosen(evaluation.matmul, start.mesh)
        laid_out = partial(for_decoding, mesh=start.mesh, products=products.dtype)
        target, drafts = laid_out(target), {name: laid_out(model) for name, model in drafts.items()}
        evidence = _evidence(start, target, drafts, evaluation)
        measured, plain = _measured(start, target, drafts, evaluation, evidence)
        kept = processes.once(lambda: {label: workdir.finished(label) for label in start.stages})
        report = {
            "task": text.record["train"]["task"],
            "settings": {**settings, "eos_id": text.ends.recorded, "measured": MEASURED_HOW},
            **({"notes": list(products.notes)} if products.notes else {}),
            "environment": reporting.environment(jax.devices()[0].device_kind) | {"devices": jax.device_count()},
            "data": text.record,
            "models": {name: model.num_params for name, model in {"target": target, **drafts}.items()},
            "stages": kept,
            "teacher": processes.once(lambda: _teacher(workdir)),
            **report_fields(measured, plain, resamples=evaluation.resamples, pairs=_pairs(drafts, start.stages)),
        }
        counts = {name: result.counts.as_lists() for name, result in measured.items()}
        processes.once(lambda: reporting.write_json(workdir.path / "counts.json", counts))
        report = processes.once(lambda: _written(workdir, report))
        shown = _selected(start.stages["draft"], text, target, drafts) if on_data_set else None
        shown = shown or labelled_tokens(text.tokenizer, text.train[:BATCH_ROWS_SHOWN])
        kept = {**evidence.record, "rows": shown}
        processes.once(lambda: reporting.write_evidence(workdir.path, kept))
        processes.once(lambda: reporting.write_page(workdir.path / "report.html", [reporting.read_run(workdir.path)]))
        processes.once(workdir.seal_report)
    return report


def _evidence(start: Start, target, drafts: Mapping[str, models.CausalLM], evaluation: Evaluation) -> Evidence:
    """What is to be gathered: answers are kept of the draft first, then of what it is held against."""
    first = [name for name in ("draft", "reference", EQUAL_DATA, "base") if name in drafts]
    fit = start.stages["draft"].fit
    return Evidence(
        target,
        start.text.tokenizer,
        [*first, *(name for name in drafts if name not in first)],
        rows=target.config.vocab_size,
        max_new_tokens=evaluation.max_new_tokens,
        greedy=Sampling(evaluation.temperature).greedy,
        fraction=(fit.final_fraction or fit.fraction) if isinstance(fit, Draft) else None,
    )


def _measured(start: Start, target, drafts: Mapping[str, models.CausalLM], evaluation: Evaluation, evidence: Evidence):
    text, stage = start.text, start.stages["draft"]
    length = evaluation.draft_length or PROBE_LENGTH
    prompts = text.held_out[: evaluation.num_prompts]
    batches = data.prompt_batches(prompts, evaluation.batch_size, buckets=stage.buckets, pad_id=text.eos_id)
    with reporting.track(len(prompts), description="evaluation", unit="prompt") as progress:
        return measure(
            target,
            {name: Contender(chain_of(model, target, length)) for name, model in drafts.items()},
            list(batches),
            choose_length=not evaluation.draft_length,
            max_new_tokens=evaluation.max_new_tokens,
            sampling=Sampling(evaluation.temperature),
            eos_id=text.ends,
            seed=seeds.evaluation(stage.seed),
            place=lambda rows: sharding.shard_rows(sharding.my_rows(rows, start.mesh), start.mesh),
            advance=progress.advance,
            look=evidence.look,
        )


def _pairs(drafts: Mapping[str, Any], stages: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of drafts that are tested against each other, prompt by prompt."""
    baselines = [name for name in ("reference", EQUAL_DATA) if name in drafts]
    arms = [label for label in stages if label not in (*STAGES, QUALIFIER)]
    pairs = [("draft", other) for other in (*baselines, "base")] + [(other, "base") for other in baselines[:1]]
    return pairs + [(arm, other) for arm in arms for other in baselines if other != arm]


def _teacher(workdir: Workdir) -> dict[str, Any] | None:
    chosen = workdir.decision("teacher")
    if chosen is None or chosen["choice"] != "top_k":
        return chosen
    return {**chosen, "error": workdir.decision("teacher_error")}


def _written(workdir: Workdir, report: dict[str, Any]) -> dict[str, Any]:
    file = workdir.path / "report.json"
    reporting.write_json(file, report)
    return files.parsed(file.read_text(encoding="utf-8"))  # what a later run will find


def _selected(stage: StageSpec, text: Text, target, drafts: Mapping[str, Any]) -> list[list[dict]] | None:
    """Rows with what the draft would be trained on now; None where that is not the rule `selected_tokens` shows."""
    draft = stage.fit
    if stage.kind != MODEL:
        return None
    ordinary = draft.selection == "top" and draft.scope == "global" and draft.reference == "trained"
    if not ordinary or "reference" not in drafts:
        return None
    rows = text.train[:BATCH_ROWS_SHOWN]
    [(_, batch)] = data.row_batches(rows, range(len(rows)), len(rows), buckets=stage.buckets, pad_id=text.eos_id)
    return selected_tokens(
        text.tokenizer,
        Frozen(target=target, reference=drafts["reference"]),
        drafts["draft"],
        Batch(**batch),
        rows,
        divergence=stage.divergence,
        fraction=draft.final_fraction or draft.fraction,
    )
