"""report.json and the table printed after a run: unrounded numbers in the file, rounded ones only on the screen."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from adaspec_jax import files
from adaspec_jax.errors import UserError
from adaspec_jax.places import near_place
from adaspec_jax.program import called_as
from adaspec_jax.reporting import wording
from adaspec_jax.reporting.tables import aligned, in_blocks
from adaspec_jax.reporting.verdict import verdict

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy", "adaspec_jax")
_OF_A_RUN = (  # what the report of a training run has, and that of a measured pair has not
    ("task",),
    ("settings", "evaluation", "max_new_tokens"),
    ("drafts", "draft", "alpha"),
    ("paired",),
)


def write_json(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """Replaces `path` with the report as strict JSON, or leaves it untouched; ValueError names a NaN or infinity."""
    text = json.dumps(plain(report), indent=2, allow_nan=False, ensure_ascii=False)
    files.write_text(path, text + "\n")


def plain(value: Any, *, where: str = "report", nonfinite_to_null: bool = False) -> Any:
    """`value` as JSON-ready Python: arrays become lists and their scalars numbers, with all their digits.

    ValueError for a NaN or infinity (unless `nonfinite_to_null`), TypeError for anything without a JSON form.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if nonfinite_to_null:
            return None
        raise ValueError(f"{where} is {value}, which JSON cannot hold")
    if isinstance(value, Mapping):
        return {
            str(key): plain(item, where=f"{where}.{key}", nonfinite_to_null=nonfinite_to_null)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
        return [plain(item, where=f"{where}[{i}]", nonfinite_to_null=nonfinite_to_null) for i, item in items]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars alike
        listed = value.tolist()
        listed = float(listed) if hasattr(listed, "dtype") else listed  # bfloat16 scalars list as themselves
        return plain(listed, where=where, nonfinite_to_null=nonfinite_to_null)
    raise TypeError(f"{where} is a {type(value).__name__}, which has no JSON form")


def environment(device: str | None = None) -> dict[str, Any]:
    """What a number depends on: Python, platform, usable CPUs, `device` kind, package versions (None where absent).

    Nothing that identifies a machine or a person: no host name, user name, path or kernel build.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": usable,
        "device": device,
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)  # a checkout that was never installed


def table(report: Mapping[str, Any], evidence: Mapping[str, Any] | None = None) -> str:
    """The report as plain text: the verdict, a row per draft, the tests in words, what makes it comparable."""
    first = [*verdict(report, evidence), ""] if verdict(report) else []
    return "\n".join([*first, *aligned(_shown(report)), "", *wording.sentences(report)])


def _shown(report: Mapping[str, Any]) -> list[list[str]]:
    """The columns' names, and a row per draft, without columns in which none says anything."""
    rows = wording.rows(report)
    shown = wording.shown_columns(rows)
    return [[row[i] for i in shown] for row in [wording.COLUMNS, *rows]]


def print_table(
    report: Mapping[str, Any], file: IO[str] | None = None, evidence: Mapping[str, Any] | None = None
) -> None:
    """Prints `table`, drawn by rich when `file` (standard output by default) is a terminal."""
    file = sys.stdout if file is None else file
    if not (hasattr(file, "isatty") and file.isatty()):
        print(table(report, evidence), file=file)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, highlight=False)
    names, *rows = _shown(report)
    drawn = Table(title=wording.title(report), title_justify="left", title_style="bold")
    for number, name in enumerate(names):
        drawn.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    needed = 1 + sum(3 + max(map(len, column)) for column in zip(names, *rows, strict=True))
    for sentence in verdict(report, evidence):
        console.print(sentence, markup=False, style="bold")
    if needed <= console.width:
        console.print(drawn, markup=False)
    else:
        block = [f"{wording.title(report)}:", "", *in_blocks([names, *rows], columns=console.width), ""]
        console.print("\n".join(block), markup=False)
    for sentence in wording.sentences(report):
        console.print(sentence, markup=False)


def read_report(path: str | os.PathLike) -> dict[str, Any]:
    """The report of a finished training run, given the run's directory or the file itself.

    UserError where there is none, where it is damaged, or where it is the report of something else.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        made = f"{path} has no report.json" if path.is_dir() else f"there is no {path}"
        run = path.parent if (path.parent / "report.json").is_file() and path.is_dir() else None
        near = f'; did you mean "{run}"?' if run else near_place(path)
        raise UserError(f"{made}; give the directory of a run that {called_as('train')} has finished{near}")
    report = files.read_json(file, mend="call the run's own command again, which measures anew")
    for keys in _OF_A_RUN:
        at = report
        for depth, key in enumerate(keys, start=1):
            if not isinstance(at, dict) or key not in at:
                raise UserError(f"{file} is not the report of a training run: it has no {'.'.join(keys[:depth])}")
            at = at[key]
    return report
