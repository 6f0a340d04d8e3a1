"""Why a finished run's acceptance is what it is: its record and its models, examined and judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaspec_jax import data, files, reporting
from adaspec_jax.config import Data, Draft
from adaspec_jax.config.paper import departures
from adaspec_jax.diagnosis.commands import AGAIN
from adaspec_jax.diagnosis.curves import curve_of
from adaspec_jax.diagnosis.evidence import Evidence, Names, Recipe, Served
from adaspec_jax.diagnosis.examine import Asked, examine
from adaspec_jax.diagnosis.judge import judge
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.examples import held_out_of, training_and_held_out
from adaspec_jax.pipeline.text import chat_of
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.program import called_as

_AGAIN = '''"""This run's own config, to be run once more with keys changed on the command line."""

import json
from pathlib import Path

from adaspec_jax.config import Experiment, experiment_of


def get_config(variant: str = "") -> Experiment:
    return experiment_of(json.loads((Path(__file__).resolve().parent / "config.json").read_text(encoding="utf-8")))
'''


def diagnose_run(
    directory: str | Path,
    *,
    served: Mapping[str, Any] | None = None,
    prompts: data.Source | None = None,
    said: Mapping[str, str | None] | None = None,
    number: int = 48,
) -> dict[str, Any]:
    """`diagnosis.judge` of a finished run, a plain value; written to DIR/diagnosis.json, and onto the report's page.

    `served`: what differs from the run's own evaluation where the pair is used ("temperature", "dtype", "draft_length",
    "max_new_tokens", "guesses"), and `prompts` in place of the run's, of which `said` are the options that name them
    ("task", "data", "prompt_column"). A config for the next run is written to DIR/again.py.
    """
    found = judge(evidence_of_run(directory, served=served, prompts=prompts, said=said, number=number))
    path = Path(directory)
    reporting.write_json(path / reporting.DIAGNOSIS, found)
    files.write_text(path / AGAIN, _AGAIN)
    _onto_the_page(Workdir(path))
    return found


def _onto_the_page(workdir: Workdir) -> None:
    """The report stays the one that the run's own command finds, where it was."""
    whole = workdir.report_is_sealed()
    reporting.write_page(workdir.path / "report.html", [reporting.read_run(workdir.path)])
    if whole:
        workdir.seal_report()


def evidence_of_run(
    directory: str | Path,
    *,
    served: Mapping[str, Any] | None = None,
    prompts: data.Source | None = None,
    said: Mapping[str, str | None] | None = None,
    number: int = 48,
) -> Evidence:
    """What `diagnose_run` judges."""
    report, workdir = reporting.read_report(directory), Workdir(directory)
    for stage in ("target", "draft"):
        if workdir.finished(stage) is None:
            raise UserError(f"{directory} has no finished {stage}; run {called_as('train')} with it first")
    settings = report["settings"]
    try:
        spec = held_out_of(settings)[0]
        drawn = settings["seed"]
        train, held_out, _ = training_and_held_out(spec, drawn)
        how = {key: settings["evaluation"][key] for key in ("temperature", "draft_length", "max_new_tokens")}
        how["draft_length"] = how["draft_length"] or report["speed"].get("draft_length")
        how |= {"dtype": settings["dtype"], **(served or {})}
        known = _record(report, settings, workdir)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the report of {directory} does not say how it was made ({type(error).__name__}: {error}); measure anew "
            "by the run's own command"
        ) from None
    asked = Asked(
        served=prompts or held_out,
        trained=train,
        number=number,
        max_length=spec.max_length,
        max_prompt_length=spec.max_prompt_length,
        chat=lambda tokenizer, examples: chat_of(spec, tokenizer, examples, report["data"].get("chat_date")),
        seed=drawn,
        batch_size=settings["evaluation"]["batch_size"],
    )
    return examine(_names(directory, spec, said), Served(**how), asked, known)


def _names(directory: str | Path, spec: Data, said: Mapping[str, str | None] | None) -> Names:
    place = str(directory).rstrip("/")
    options = f"--task={spec.task}" if spec.task in data.TASKS else "--task=columns"
    if spec.prompt_column is not None:
        options = f"--prompt_column={spec.prompt_column}"
    if spec.evaluation is not None:
        options += f" --data={spec.evaluation}"
    own, models = f"{options} --split={spec.evaluation_split}", (f"{place}/target", f"{place}/draft")
    if said is None:
        return Names(*models, own, place)
    served = " ".join(f"--{name}={value}" for name, value in said.items() if value)
    return Names(*models, served, place, own, said.get("data"), said.get("prompt_column"))


def _record(report: Mapping[str, Any], settings: Mapping[str, Any], workdir: Workdir) -> dict[str, Any]:
    """What the run's own files say."""
    draft, stage = settings["draft"], report["stages"]["draft"]
    lines = reporting.read_metrics(workdir.stage("draft") / "metrics.jsonl")
    fit = {"epochs": stage["epochs"], "asked_epochs": draft["epochs"]}
    fit |= {"schedule": draft["schedule"], "clip_norm": draft["clip_norm"]}
    counts = report["data"]["train"]
    return {
        "draft": curve_of(lines, **fit),
        "recipe": _recipe(report, draft),
        "unended_rows": counts["truncated"] / max(counts["examples"], 1),
        "from_targets_answers": settings["answers"]["source"] != "dataset",
        "generated": counts.get("kind") == "generated",
    }


def _recipe(report: Mapping[str, Any], draft: Mapping[str, Any]) -> Recipe:
    stages = report["stages"]
    paired = report["paired"].get("draft-reference") or {}
    over = None
    if paired.get("difference") is not None:
        over = (paired["difference"], *paired["ci95"])
    rows = {
        name: stages[name]["steps"] * stages[name]["batch_size"] for name in ("reference", "draft") if name in stages
    }
    fraction = draft.get("fraction", Draft().fraction)
    return Recipe(
        fraction=fraction,
        normalize=draft["normalize"],
        budget=draft["budget"],
        selection=draft["selection"],
        label_passes=fraction * rows["draft"] / max(rows.get("reference", rows["draft"]), 1),
        over_reference=over,
        departures=tuple(departures(report["settings"])),
    )
