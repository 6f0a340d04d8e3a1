"""TensorBoard, Weights & Biases and Trackio get every step once: stand-ins, and tensorboardX where it is."""

import json
import sys
import types

import pytest

from adaspec_jax.config import Experiment, validate
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.stage_log import StageLog
from adaspec_jax.reporting import read_metrics
from adaspec_jax.reporting.sinks import check_metrics
from tests.running import CHECKOUT, command_line

NAMES = ("tensorboard", "wandb", "trackio")


@pytest.fixture(autouse=True)
def unchecked():
    check_metrics.cache_clear()


class Service:
    """What a service has of each run after what it was told; a step that it has is an error."""

    def __init__(self):
        self.runs, self.opened, self.closed, self.fails_at, self.mode, self.key = {}, [], 0, None, "online", "key"
        self.leaves_out = False  # steps that are not above what it has, as wandb does online

    def run(self, run, **about):
        self.opened.append(about)
        steps = self.runs.setdefault(run, {})

        def log(values, step):
            if step == self.fails_at:
                raise ConnectionError("no route to host\nmore")
            if self.leaves_out and step <= max(steps, default=0):
                return
            assert step not in steps
            steps[step] = values

        def finish():
            self.closed += 1

        return types.SimpleNamespace(
            log=log, finish=finish, offline=self.mode == "offline", url="https://example.org/run"
        )

    @property
    def steps(self):
        (steps,) = self.runs.values()
        return steps


@pytest.fixture
def services(monkeypatch):
    """Modules in the packages' places, each with a service behind it."""
    made = {name: Service() for name in NAMES}

    class SummaryWriter:
        def __init__(self, logdir, purge_step, filename_suffix):
            self._steps = made["tensorboard"].runs.setdefault(logdir, {})
            for step in [step for step in self._steps if step >= purge_step]:
                del self._steps[step]

        def add_scalar(self, name, value, step):
            values = self._steps.setdefault(step, {})
            assert name not in values
            values[name] = value

        def close(self):
            made["tensorboard"].closed += 1

    wandb, trackio = made["wandb"], made["trackio"]
    modules = {
        "tensorboardX": {"SummaryWriter": SummaryWriter},
        "wandb": {
            "init": lambda id, **about: wandb.run(id, **about),
            "setup": lambda: types.SimpleNamespace(settings=types.SimpleNamespace(mode=wandb.mode)),
            "login": lambda prompt: bool(wandb.key),
            "Settings": lambda **settings: settings,
        },
        "trackio": {"init": lambda name, **about: trackio.run(name, **about)},
    }
    for name, content in modules.items():
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))
    return made


def run_stage(directory, first, last, *, resume_at=0):
    log = StageLog("draft", directory / "metrics.jsonl", 20, ",".join(NAMES), {"lr": 0.1})
    log.rewind(resume_at)
    for step in range(first, last + 1):
        log.write(step, {"loss": 1 / step, "tokens": 7.0})
    return log


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("killed_at", [5, 8])
def test_a_killed_and_resumed_stage_tells_every_step_once(services, tmp_path, killed_at, mode):
    directory = tmp_path / "first" / "draft"
    services["wandb"].mode, services["wandb"].leaves_out = mode, mode == "online"
    run_stage(directory, 1, killed_at)  # never closed
    run_stage(directory, 6, 20, resume_at=5).__exit__(None, None, None)
    expected = {step: {"loss": 1 / step, "tokens": 7.0} for step in range(1, 21)}
    assert [entry["step"] for entry in read_metrics(directory / "metrics.jsonl")] == list(expected)
    for name, service in services.items():
        assert service.steps == expected, name
        assert service.closed == 1, name


def test_a_stage_that_is_begun_again_is_a_run_of_its_own(services, tmp_path):
    directory = tmp_path / "first" / "draft"
    run_stage(directory, 1, 3)
    for file in directory.iterdir():
        if file.is_file():
            file.unlink()
    run_stage(directory, 1, 2)
    for name in ("wandb", "trackio"):
        assert sorted(map(len, services[name].runs.values())) == [2, 3]


def test_a_run_shows_its_name_stage_and_settings(services, tmp_path):
    run_stage(tmp_path / "first" / "draft", 1, 2).__exit__(None, None, None)
    (about,) = services["wandb"].opened
    assert about["name"] == "first/draft" and about["group"] == "first" and about["config"] == {"lr": 0.1}
    (name,) = services["trackio"].runs
    assert name.startswith("first-draft-") and services["trackio"].opened[0]["resume"] == "allow"


def test_a_service_that_fails_ends_no_training(services, tmp_path, capsys):
    services["wandb"].fails_at = 3
    run_stage(tmp_path / "first" / "draft", 1, 20)
    assert sorted(services["wandb"].steps) == [1, 2] and sorted(services["trackio"].steps) == list(range(1, 21))
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert said == ("note: wandb gets no more metrics of this stage (no route to host); metrics.jsonl has them all")


def test_a_sink_that_does_not_open_ends_no_training(services, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **_: 1 / 0)
    run_stage(tmp_path / "first" / "draft", 1, 2)
    assert "trackio gets no more metrics" in capsys.readouterr().err and len(services["wandb"].steps) == 2


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_a_missing_package_is_said_before_anything_is_made(name, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(CHECKOUT)
    arguments = ["--config=quickstart", f"--config.metrics={name}", "--workdir", tmp_path / "run"]
    monkeypatch.setattr("adaspec_jax.pipeline.__getattr__", lambda name: pytest.fail("the pipeline was imported"))
    status, _, errors = command_line(capsys, monkeypatch, "train", *arguments)
    assert status == 2 and f": pip install {package}\n" in errors and not (tmp_path / "run").exists()


def test_wandb_without_an_account_is_said_at_the_start(services, capsys):
    services["wandb"].key = None
    with pytest.raises(UserError, match="not logged in here: run `wandb login`.*WANDB_MODE=offline"):
        check_metrics("wandb")
    services["wandb"].mode = "offline"
    check_metrics("tensorboard,wandb")
    assert "`wandb sync`" in capsys.readouterr().err


def test_a_misspelt_sink_gets_a_near_name():
    config = Experiment()
    config.metrics = "wandb,tensorbord"
    with pytest.raises(UserError, match='metrics has "tensorbord"; did you mean "tensorboard"'):
        validate(config)
    config.metrics = "wandb, tensorboard,trackio"
    validate(config)


def test_tensorboards_files_have_every_step_once_after_a_resumption(tmp_path):
    events = pytest.importorskip("tensorboardX.event_file_writer", reason="tensorboardX is not installed here")
    record = pytest.importorskip("tensorboardX.proto.event_pb2")
    assert events
    directory = tmp_path / "first" / "draft"
    for first, last, resume_at in ((1, 8, 0), (6, 10, 5)):
        log = StageLog("draft", directory / "metrics.jsonl", 10, "tensorboard", {})
        log.rewind(resume_at)
        for step in range(first, last + 1):
            log.write(step, {"loss": 1 / step})
        log.__exit__(None, None, None)
    found = {}
    for file in sorted((directory / "tensorboard").glob("events.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):  # length, its sum, the event, its sum
            size = int.from_bytes(content[at : at + 8], "little")
            event = record.Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            if event.HasField("session_log"):  # what came from this step on is forgotten
                found = {step: value for step, value in found.items() if step < event.step}
            for value in event.summary.value:
                assert event.step not in found
                found[event.step] = value.simple_value
    assert found == {step: pytest.approx(1 / step) for step in range(1, 11)}


def test_tracked_names_are_kept_beside_the_stage(services, tmp_path):
    run_stage(tmp_path / "first" / "draft", 1, 1)
    (run,) = services["wandb"].runs
    assert json.loads((tmp_path / "first" / "draft" / "tracked.json").read_text()) == {"id": run}
