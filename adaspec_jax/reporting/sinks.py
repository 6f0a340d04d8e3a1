"""Where metrics go beside metrics.jsonl: TensorBoard's files, Weights & Biases, Trackio. Each is an optional package.

A resumed stage tells no step twice. Steps after its checkpoint come again with the same values: TensorBoard takes back
those that it has; wandb, where it is online, leaves out what it has; the others are told what no session told before.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adaspec_jax.errors import UserError, first_line
from adaspec_jax.files import read_json, write_json

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_PROJECT = "adaspec-jax"


class Sink(Protocol):
    """Takes the numbers of each step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Beginning:
    """What a sink is opened for: a stage of a run, begun or gone on with."""

    run: str
    stage: str
    directory: Path  # the stage's
    settings: Mapping[str, Any]
    resume_at: int = 0  # steps that are done and stay
    told: int = 0  # the last step that an earlier session told

    @property
    def id(self) -> str:
        """Of this stage, as long as its directory is there."""
        file = self.directory / "tracked.json"
        if not file.is_file():
            write_json(file, {"id": uuid.uuid4().hex[:12]})
        return read_json(file)["id"]


@functools.cache
def check_metrics(names: str) -> None:
    """UserError where a package that is named (with commas between them) is missing, or knows no account."""
    for name in _split(names):
        package = _PACKAGES[name]
        try:
            module = importlib.import_module(package)
        except ImportError:
            said = f'config.metrics has "{name}", and {package} is not installed'
            raise UserError(f"{said}: pip install {package}") from None
        if name == "wandb":
            _check_login(module)


def open_sinks(names: str, beginning: Beginning) -> dict[str, Sink]:
    """By name; one that does not open is said and left out: it is no reason not to train."""
    opened: dict[str, Sink] = {}
    for name in _split(names):
        try:
            opened[name] = _OPEN[name](beginning)
        except Exception as error:
            _say_lost(name, error)
    return opened


def tell(sinks: dict[str, Sink], step: int, values: Mapping[str, Any]) -> None:
    """Writes the numbers of a step to all sinks; one that fails is said, and taken out."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    for name, sink in list(sinks.items()):
        try:
            sink.write(step, numbers)
        except Exception as error:
            del sinks[name]
            _say_lost(name, error)


def close_sinks(sinks: dict[str, Sink]) -> None:
    for name, sink in sinks.items():
        try:
            sink.close()
        except Exception as error:
            _say_lost(name, error)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _say_lost(name: str, error: Exception) -> None:
    words = f"{name} gets no more metrics of this stage ({first_line(error)}); metrics.jsonl has them all"
    print(f"note: {words}", file=sys.stderr, flush=True)


def _check_login(wandb) -> None:
    if wandb.setup().settings.mode in ("offline", "disabled"):
        how = "wandb is offline: `wandb sync` sends what it writes into the stages' directories"
        return print(f"note: {how}", file=sys.stderr)
    try:
        known = wandb.login(prompt=False)
    except Exception as error:
        known, why = False, f" ({first_line(error)})"
    else:
        why = ""
    if not known:
        raise UserError(
            f'config.metrics has "wandb", which is not logged in here{why}: run `wandb login`, set WANDB_API_KEY, or '
            "set WANDB_MODE=offline to write files alone"
        )


class _Tensorboard:
    def __init__(self, beginning: Beginning) -> None:
        from tensorboardX import SummaryWriter

        # purge_step hides what a killed run told after its last checkpoint.
        place, following = str(beginning.directory / "tensorboard"), beginning.resume_at + 1
        self._writer = SummaryWriter(logdir=place, purge_step=following, filename_suffix=f".from{following}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, beginning: Beginning) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=beginning.id,
            name=f"{beginning.run}/{beginning.stage}",
            group=beginning.run,
            config=dict(beginning.settings),
            dir=str(beginning.directory),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._told = beginning.told if self._run.offline else beginning.resume_at
        if not self._run.offline:
            print(f"{beginning.stage}: {self._run.url}", flush=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._told:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, beginning: Beginning) -> None:
        import trackio

        self._told = beginning.told
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{beginning.run}-{beginning.stage}-{beginning.id}",
            group=beginning.run,
            config=dict(beginning.settings),
            resume="allow",
            embed=False,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._told:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_OPEN: dict[str, Callable[[Beginning], Sink]] = {"tensorboard": _Tensorboard, "wandb": _Wandb, "trackio": _Trackio}
