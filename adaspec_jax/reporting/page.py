"""One self-contained page of one or several runs: the verdict, tables, figures and answers token by token."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from adaspec_jax.files import write_text
from adaspec_jax.reporting import evidence_figures, figures, wording
from adaspec_jax.reporting.answers import Answer, answers_of
from adaspec_jax.reporting.page_script import SCRIPT
from adaspec_jax.reporting.page_style import STYLE
from adaspec_jax.reporting.page_template import TEMPLATE
from adaspec_jax.reporting.runs import Run, named_apart
from adaspec_jax.reporting.verdict import verdict

MOST_BYTES = 5_000_000
_MOST_TOKENS = 7000  # of all answers together
_LONGEST_VALUE = 600  # characters of a setting
_MOST_SETTINGS = 400


def write_page(path: str | os.PathLike, runs: Sequence[Run]) -> None:
    """Writes it whole or not at all, below `MOST_BYTES` however long the runs were: answers give way."""
    write_text(path, page(runs))


def page(runs: Sequence[Run]) -> str:
    """The HTML. Whatever a run lacks is left out; all text is escaped."""
    runs, most = named_apart(runs), _MOST_TOKENS
    parts = _parts(runs)
    while True:
        text = _filled(parts, answers_of(runs, most))
        if len(text.encode("utf-8", "replace")) < MOST_BYTES or not most:
            return text
        most //= 2


def _filled(parts: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    from jinja2 import Environment

    # What stands in a script element ends at "</", whatever its type; "<" has another spelling in JSON.
    blob = json.dumps([answer.columns for answer in answers], separators=(",", ":")).replace("<", "\\u003c")
    template = Environment(autoescape=True).from_string(TEMPLATE)
    return template.render(**parts, answers=answers, blob=blob)


def _parts(runs: Sequence[Run]) -> dict[str, Any]:
    names = [run.name if len(runs) > 1 else "" for run in runs]
    said = [(name, verdict(run.report, run.evidence)) for name, run in zip(names, runs, strict=True)]
    missing = [
        f"{name}: {line}" if name else line for name, run in zip(names, runs, strict=True) for line in run.missing
    ]
    measured = figures.apart(evidence_figures.measured(runs))
    trained = figures.apart(evidence_figures.trained(runs), len(measured))
    folded = [
        (f"{heading} of {name}" if name else heading, flat(run.report[key])[:_MOST_SETTINGS])
        for name, run in zip(names, runs, strict=True)
        for heading, key in (("Settings", "settings"), ("Environment", "environment"))
        if run.report.get(key)
    ]
    tables = [_table(name, run.report) for name, run in zip(names, runs, strict=True)]
    return {
        "title": wording.title(runs[0].report) if len(runs) == 1 else f"Acceptance of {len(runs)} runs",
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_sha256(SCRIPT)}'",
        "style": STYLE,
        "script": SCRIPT,
        "verdicts": [(name, sentences) for name, sentences in said if sentences],
        "missing": missing,
        "tables": [table for table in tables if table["rows"]],
        "diagnoses": [
            (name, _causes_first(run.diagnosis)) for name, run in zip(names, runs, strict=True) if run.diagnosis
        ],
        "names": names,
        "differing": differing([run.report.get("settings") or {} for run in runs]),
        "figures": [("Acceptance and speed", measured), ("Training", trained)],
        "folded": folded,
    }


def _table(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    rows = wording.rows(report)
    shown = wording.shown_columns(rows) if rows else []
    cells = [[row[column] for column in shown] for row in rows]
    head = [wording.COLUMNS[column] for column in shown]
    return {"name": name, "head": head, "rows": cells, "said": wording.sentences(report)}


def _causes_first(diagnosis: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**diagnosis, "findings": sorted(diagnosis["findings"], key=lambda found: found["verdict"] != "cause")}


def differing(settings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """[key, value of each run] of the settings that are not the same in all of them."""
    by_run = [dict(flat(each)) for each in settings]
    keys = dict.fromkeys(key for each in by_run for key in each)
    rows = [[key, *(each.get(key, "-") for each in by_run)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1][:_MOST_SETTINGS]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("draft.lr", "0.0003") pairs."""
    pairs = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{name}.")
        else:
            text = "-" if value is None else str(value)
            pairs.append((f"{prefix}{name}", text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} …"))
    return pairs


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
