"""A finished run as its directory keeps it: report, evidence and curves, read without jax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax import files
from adaspec_jax.errors import UserError
from adaspec_jax.reporting import metrics_file
from adaspec_jax.reporting.evidence import read_evidence
from adaspec_jax.reporting.report import read_report

_NO_EVIDENCE = (
    "This run keeps no evidence (an earlier version measured it): acceptance by place, class and confidence, and the "
    "view of single tokens, are missing. Delete its report.html and call the run's own command again, which "
    "measures anew and trains nothing."
)


DIAGNOSIS = "diagnosis.json"  # in a run's directory, where it was asked why acceptance is low


class Run(NamedTuple):
    """What a page shows of a run."""

    name: str
    report: Mapping[str, Any]
    evidence: Mapping[str, Any] | None = None
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = {}  # stage -> entries with "step" and "loss"
    missing: Sequence[str] = ()  # a line for each part that the run does not keep
    diagnosis: Mapping[str, Any] | None = None


def read_run(path: str | os.PathLike) -> Run:
    """Given a run's directory, or its report.json alone. UserError where that is damaged or no run's."""
    path = Path(path)
    report, directory = read_report(path), path if path.is_dir() else path.parent
    evidence = read_evidence(directory)
    try:
        curves = {
            str(stage): metrics_file.read(directory / str(stage) / "metrics.jsonl")
            for stage in report.get("stages") or {}
        }
    except ValueError as error:
        raise UserError(f"{error}; copy the file back, or delete it to have the page without its curves") from None
    name = directory.resolve().name
    missing = [] if evidence else [_NO_EVIDENCE]
    return Run(name, report, evidence, curves, missing, read_diagnosis(directory))


def read_diagnosis(directory: str | os.PathLike) -> dict[str, Any] | None:
    """What the command `diagnose` found of the run there; None where it was not asked, or where that is damaged."""
    try:
        found = files.parsed((Path(directory) / DIAGNOSIS).read_text(encoding="utf-8"))
        whole = all(
            isinstance(finding[key], str) for finding in found["findings"] for key in ("check", "verdict", "says")
        )
        return found if whole and isinstance(found["verdict"], str) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """With names that differ: those of equal name are numbered."""
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else run._replace(name=f"{run.name} ({names[: place + 1].count(run.name)})")
        for place, run in enumerate(runs)
    ]
