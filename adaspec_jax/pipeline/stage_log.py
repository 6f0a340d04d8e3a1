"""What a stage leaves behind while it runs: metrics in a file, progress on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaspec_jax import reporting
from adaspec_jax.devices import processes
from adaspec_jax.devices.in_use import bytes_in_use
from adaspec_jax.pipeline.forecast import Forecast
from adaspec_jax.reporting.sinks import Beginning, Sink, close_sinks, open_sinks, tell


class StageLog:
    """Metrics to a file and wherever else they go, progress to the terminal; opened when it is known where to resume.

    `metrics`: names of sinks, with commas between them; `settings` is what they show beside the run's and stage's name.
    `forecast` is told how fast the stage goes, and says how long the run does.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        steps: int,
        metrics: str,
        settings: Mapping[str, Any],
        forecast: Forecast | None = None,
    ) -> None:
        self._name, self._path, self._steps, self._metrics, self._settings = name, file, steps, metrics, settings
        self._forecast, self._worked = forecast, (0.0, 0.0)  # share of the steps, and seconds, as last heard
        self._file = self._progress = None
        self._sinks: dict[str, Sink] = {}
        self.compile_seconds = 0.0  # of this session

    def __enter__(self) -> StageLog:
        return self

    def rewind(self, step: int, checksum: int | None = None) -> None:
        if not processes.first():
            return
        self._file = reporting.MetricsFile(self._path, resume_at=step, checksum=checksum)
        directory = self._path.parent
        of_stage = {"run": directory.resolve().parent.name, "stage": self._name, "directory": directory}
        so_far = {"settings": self._settings, "resume_at": step, "told": self._file.told}
        self._sinks = open_sinks(self._metrics, Beginning(**of_stage, **so_far))
        shown = {"description": self._name, "initial": step, "memory": bytes_in_use, "after": self._after}
        self._progress = reporting.track(self._steps, **shown).__enter__()
        if step < self._steps:
            self._progress.doing("compiling")

    def write(self, step: int, values: dict[str, Any]) -> None:
        self.compile_seconds += values.get("compile_seconds", 0.0)
        if self._file is None:
            return
        self._file.write(step, **values)
        tell(self._sinks, step, values)
        self._progress.advance(1, loss=values["loss"], tokens=values.get("tokens", 0))

    def _after(self, steps: int, seconds: float) -> float | None:
        """Seconds that the run goes on after this stage, of which so many steps took so many."""
        if self._forecast is None:
            return None
        self._worked = steps / self._steps, seconds
        return self._forecast.after(self._name, *self._worked, self.compile_seconds)

    def note(self, step: int, values: dict[str, Any]) -> None:
        """That a step is left out."""
        loss, norm = values["loss"], values["grad_norm"]
        processes.say(f"{self._name}: step {step} is left out: its loss is {loss}, the norm of its gradient {norm}")

    def settle(self) -> int:
        return processes.once(lambda: self._file.settle())

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.__exit__(*exception)
            if self._forecast is not None:
                self._forecast.finished(self._name, *self._worked)
            self._file.close()
            close_sinks(self._sinks)


class Silent:
    """The log of steps that are done once more."""

    def rewind(self, step: int, checksum: int | None = None) -> None: ...

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def settle(self) -> int:
        return 0
