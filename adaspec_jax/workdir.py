"""A run's directory: which config made it, which stages are finished, and where their models are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from adaspec_jax import models
from adaspec_jax.config import FREE_TO_CHANGE, Experiment, flatten
from adaspec_jax.errors import UserError
from adaspec_jax.reporting import write_json

STAGES = ("target", "reference", "draft")


class Workdir:
    """`DIR/{target,reference,draft}` are Hugging Face directories with metrics.jsonl, checkpoints/ and stage.json."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)

    def claim(self, config: Experiment) -> None:
        """Writes config.json, or raises `UserError` where another config's stages are here already."""
        file = self.path / "config.json"
        ours = _jsonable(config)
        if file.is_file():
            before = _read(file)
            changed = [k for k in sorted(ours.keys() | before.keys()) if ours.get(k) != before.get(k)]
            changed = [key for key in changed if not key.startswith(FREE_TO_CHANGE)]
            if changed:
                key = changed[0]
                more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
                raise UserError(
                    f"{self.path} was made with {key}={before.get(key)!r}, not {ours.get(key)!r}{more}; "
                    "use another --workdir, or the config that made this one"
                )
        elif self.path.is_dir() and any((self.path / stage).exists() for stage in STAGES):
            raise UserError(f"{self.path} holds stages but no config.json; use another --workdir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {self.path} cannot be made: {error.strerror}") from None
        write_json(file, ours)

    def stage(self, name: str) -> Path:
        return self.path / name

    def finished(self, name: str) -> dict[str, Any] | None:
        """What stage.json records of a finished stage, else None."""
        file = self.stage(name) / "stage.json"
        return _read(file) if file.is_file() else None

    def finish(self, name: str, record: dict[str, Any]) -> None:
        self.stage(name).mkdir(parents=True, exist_ok=True)
        write_json(self.stage(name) / "stage.json", record)

    def model_source(self, name: str) -> str:
        """Where a finished stage's model is: its own directory, or for an unchanged target where it came from."""
        record = self.finished(name)
        if record is None:
            made = [stage for stage in STAGES if self.finished(stage)]
            raise UserError(
                f"{self.path} has no finished {name} stage (finished: {', '.join(made) or 'none'}); "
                f"run python -m adaspec_jax.train with --workdir {self.path} first"
            )
        return record.get("source") or str(self.stage(name))

    def load(self, name: str, *, dtype="float32") -> models.CausalLM:
        return models.load(self.model_source(name), dtype=dtype)

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"


def _jsonable(config: Experiment) -> dict[str, Any]:
    return json.loads(json.dumps(flatten(config)))


def settings(config: Experiment) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); use another --workdir") from None
