"""What a stage leaves behind while it runs: metrics in a file, progress on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaspec_jax import reporting
from adaspec_jax.devices import processes


class StageLog:
    """Metrics to a file, progress to the terminal; opened when the step to resume from is known."""

    def __init__(self, name: str, file: Path, steps: int, tensorboard: bool) -> None:
        self._name, self._path, self._steps, self._tensorboard = name, file, steps, tensorboard
        self._file = self._progress = None
        self.compile_seconds = 0.0  # of this session

    def __enter__(self) -> StageLog:
        return self

    def rewind(self, step: int, checksum: int | None = None) -> None:
        if not processes.first():
            return
        how = {"checksum": checksum, "tensorboard": self._tensorboard}
        self._file = reporting.MetricsFile(self._path, resume_at=step, **how)
        self._progress = reporting.track(self._steps, description=self._name, initial=step).__enter__()

    def write(self, step: int, values: dict[str, Any]) -> None:
        self.compile_seconds += values.get("compile_seconds", 0.0)
        if self._file is None:
            return
        self._file.write(step, **values)
        self._progress.advance(1, loss=values["loss"])

    def note(self, step: int, values: dict[str, Any]) -> None:
        """That a step is left out."""
        loss, norm = values["loss"], values["grad_norm"]
        processes.say(f"{self._name}: step {step} is left out: its loss is {loss}, the norm of its gradient {norm}")

    def settle(self) -> int:
        return processes.once(lambda: self._file.settle())

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.__exit__(*exception)
            self._file.close()


class Silent:
    """The log of steps that are done once more."""

    def rewind(self, step: int, checksum: int | None = None) -> None: ...

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def settle(self) -> int:
        return 0
