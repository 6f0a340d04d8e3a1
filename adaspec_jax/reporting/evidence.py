"""evidence.json.gz: what stands behind a run's acceptance, kept beside its report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaspec_jax import files
from adaspec_jax.errors import UserError

VERSION = 1
FILE = "evidence.json.gz"
_MEND = "call the run's own command again, which measures anew"


def write_evidence(directory: str | os.PathLike, evidence: Mapping[str, Any]) -> None:
    """Into a run's directory, whole or not at all."""
    files.write_packed(Path(directory) / FILE, evidence)


def read_evidence(directory: str | os.PathLike) -> dict[str, Any] | None:
    """Of a run's directory; None where it keeps none, UserError where that is damaged or of another version.

    {"drafts": {name: {"by_position", "by_depth", "by_class": {"judged", "accepted", ...}, "calibration", "calls",
    "seconds", "selected_from_gap", "answers"}}, "classes", "prompts", "pieces", "greedy", ...}. "by_class" also has the
    sums of KL(p || q), of sum_x min(p, q) and of both entropies over its "read" tokens. An answer has a column for each
    figure of its tokens (`measuring.tokenwise`); texts are numbers in "pieces".
    """
    file = Path(directory) / FILE
    if not file.is_file():
        return None
    evidence = files.read_packed(file, mend=_MEND)
    if evidence.get("version") != VERSION:
        raise UserError(f"{file} is of version {evidence.get('version')}, and {VERSION} is read here; {_MEND}")
    return evidence
