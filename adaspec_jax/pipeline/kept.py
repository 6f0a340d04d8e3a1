"""What a run that is interrupted has on the disk, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_RECORD, _CHECKPOINTS = "stage.json", "checkpoints"


def kept_in_words(directory: str | Path, *, below: str = "") -> str:
    """Which stages are finished, and at which step those that are not were saved; `below`: in folders of this pattern.

    Looks at names alone: whoever asks is leaving.
    """
    path = Path(directory)
    runs = sorted(path.glob(below)) if below else [path]
    kept = [f"{run.name}/{words}" if below else words for run in runs for words in _of_run(run)]
    if not kept:
        return f"{path} holds no finished stage and no checkpoint yet: the same command begins anew"
    return f"{path} holds {', '.join(kept)}: the same command goes on from there"


def _of_run(run: Path) -> Iterator[str]:
    there = [stage for stage in run.glob("*/") if (stage / _RECORD).is_file() or (stage / _CHECKPOINTS).is_dir()]
    for stage in sorted(there, key=lambda stage: (stage.name == "draft", stage.name != "target", stage.name)):
        steps = [int(step.name) for step in stage.glob(f"{_CHECKPOINTS}/*") if step.name.isdigit()]
        if (stage / _RECORD).is_file():
            yield f"{stage.name} (finished)"
        elif steps:
            yield f"{stage.name} (saved at step {max(steps)})"
