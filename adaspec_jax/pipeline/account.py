"""adaspec.json: how a stage's model came about, for whoever is handed it alone; no path or name of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from adaspec_jax import __version__
from adaspec_jax.config import CUT, RANDOM
from adaspec_jax.pipeline.workdir import COMMAND, Workdir
from adaspec_jax.places import on_the_hub, without_places
from adaspec_jax.reporting.report import environment
from adaspec_jax.reporting.wording import label

FILE = "adaspec.json"
SCHEMA = 1
_MEASURED = ("alpha", "ci95", "accepted", "judged", "drafted", "rounds", "prompts")
_MEASURED += ("block_efficiency", "expected_alpha", "teacher_forced_agreement")
_COMPARED_BY = ("draft_length", "temperature", "max_new_tokens", "num_prompts")


def account(workdir: Workdir, stage: str, *, kind: str | None, parameters: int, dtype: str) -> dict[str, Any]:
    """adaspec.json of one stage; `kind`: of a head, else None.

    Keys, in every version of the schema: schema, adaspec_jax, stage, kind, parameters, dtype, base_model, target
    (name on the hub or null, fine_tuned, model_type), command, settings, training, data, acceptance (null where none
    was measured), environment.
    """
    settings, report = workdir.settings_of(stage), workdir.report()
    made = {
        "schema": SCHEMA,
        "adaspec_jax": __version__,
        "stage": stage,
        "kind": kind,
        "parameters": parameters,
        "dtype": dtype,
        "base_model": _begun_with(settings, stage),
        "target": {
            "name": on_the_hub(str(settings.get("target.init", RANDOM))),
            "fine_tuned": bool(settings.get("target.epochs", 1)),
            "model_type": settings.get("target.architecture.model_type"),
        },
        "settings": settings,
        "training": workdir.finished(stage),
        "data": report.get("data"),
        "acceptance": _acceptance(report, stage),
        "environment": report.get("environment") or environment(),
    }
    kept = {"command": _command(workdir), "base_model": made["base_model"], "target": made["target"]}
    return without_places(made) | kept


def _command(workdir: Workdir) -> list[str] | None:
    """What `adaspec_jax.train` was told of the config; None where an earlier version did not write it down."""
    if (said := workdir.decision(COMMAND)) is None:
        return None
    file, *overrides = said["arguments"]
    shipped = PurePath(file).parts[-2:]  # configs/NAME.py[:variant] is anybody's
    return ["/".join(shipped) if shipped[0] == "configs" else without_places(f"./{file}"), *without_places(overrides)]


def _begun_with(settings: Mapping[str, Any], stage: str) -> str | None:
    """The hub's name of the weights that a stage went on from, or of the target whose layers it was cut from."""
    owner = stage if stage in ("target", "qualifier") else "draft"
    init = str(settings.get(f"{owner}.init", RANDOM))
    if init == CUT:
        init = str(settings.get("target.init", RANDOM))
    return None if init == RANDOM else on_the_hub(init)


def _acceptance(report: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
    """What the run measured of the stage's draft, and of the reference beside it."""
    drafts = report.get("drafts") or {}
    if stage not in drafts:
        return None
    evaluation = report["settings"]["evaluation"]
    used = {key: evaluation.get(key) for key in _COMPARED_BY}
    used["draft_length"] = (report.get("speed") or {}).get("draft_length") or used["draft_length"]
    others = {name: drafts[name] for name in (stage, "reference") if name in drafts}
    rows = {name: {key: row.get(key) for key in _MEASURED} for name, row in others.items()}
    pair = f"{stage}-reference"
    return {
        "task": report.get("task"),
        "measured": used,
        "drafts": {name: row | {"called": label(name, drafts)} for name, row in rows.items()},
        "minus_reference": (report.get("paired") or {}).get(pair),
    }
