"""A run's directory: which config made it, which stages are finished, and their models."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adaspec_jax import files, models
from adaspec_jax.config import FREE_TO_CHANGE, QUALIFIER, Data, Draft, Evaluation, Experiment, Reference, flatten
from adaspec_jax.errors import UserError, nearest
from adaspec_jax.pipeline.examples import weighted
from adaspec_jax.program import called_as
from adaspec_jax.reporting import evidence, working
from adaspec_jax.reporting.report import plain

STAGES = ("target", "reference", "draft")
COMMAND = "command"  # in decisions.json: how the config was given last
_ARM = "arm "  # before the name of a further draft, in decisions.json
_EXAMPLES = "examples of "  # before the name of a stage, there
_REPORT = "report"  # in decisions.json: SHA-256 of its files
_TOKENIZER = "tokenizer"  # there: SHA-256 of its files
_FILES = "files"  # key of stage.json: SHA-256 of each of these, where it is there
_SEALED = ("config.json", "drafter.json", "metrics.jsonl")


def stages_of(reference: Reference) -> tuple[str, ...]:
    """The stages of a run: no reference is trained where the draft's own average stands for it."""
    return tuple(stage for stage in STAGES if stage != "reference" or reference.epochs)


class Workdir:
    """`DIR/{target,reference,draft}` are Hugging Face directories with metrics.jsonl, checkpoints/ and stage.json."""

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)

    def claim(
        self,
        config: Experiment,
        arms: Mapping[str, Draft | Reference] = MappingProxyType({}),
        command: Sequence[str] = (),
    ) -> None:
        """Makes the directory this config's, and DIR/<arm> those settings'.

        What differs from the config that was here may only concern stages that hold no work yet; else `UserError`
        names the key and the directory that stands in the way.
        """
        self._claim_for_all(_as_json(config))
        for name, arm in arms.items():
            settings = _as_json(arm)
            # A key that is new since then had its default's meaning.
            before = _as_json(type(arm)()) | (self.decision(_ARM + name) or {})
            changed = [key for key in settings if settings[key] != before.get(key)]
            if changed and self._holds_work(name):
                key = changed[0]
                raise UserError(
                    f"{self.stage(name)} was made with {key}={before.get(key)!r}, not {settings[key]!r}; delete it to "
                    "redo it, or use another --workdir"
                )
            if changed:
                shutil.rmtree(self.stage(name), ignore_errors=True)
            self.decide(_ARM + name, settings)
        if command:
            self.decide(COMMAND, {"arguments": list(command)})

    def _claim_for_all(self, ours: dict[str, Any]) -> None:
        file = self.path / "config.json"
        if not file.is_file():
            self._claim_new()
            return _write(file, ours)
        # A key that is new since then had its default's meaning.
        before = _as_json(Experiment()) | _read(file)
        changed = [key for key in ours if ours[key] != before.get(key) and not key.startswith(FREE_TO_CHANGE)]
        for key in changed:
            for stage in self._following(key):
                if self._holds_work(stage):
                    raise UserError(
                        f"{self.path} was made with {key}={before.get(key)!r}, not {ours[key]!r}; use another "
                        f"--workdir, the old config, or delete {self.stage(stage)} and later stages to redo them"
                    )
        if changed:  # what lies there is no more than a beginning
            first = min(map(_first_stage_of, changed))
            begun = {self.stage(stage) for key in changed for stage in self._following(key)}
            for beginning in [*begun, *([self.tokenizer] if first == 0 else [])]:
                shutil.rmtree(beginning, ignore_errors=True)
        _write(file, ours)

    def _following(self, key: str) -> list[str]:
        """The stages and arms that come from what the key changes, in their order.

        Further drafts come from everything but the settings of the draft stage itself, and have their own of those. The
        qualifier comes from nothing of the reference's and the draft's.
        """
        first, arms = _first_stage_of(key), [name[len(_ARM) :] for name in self._decisions() if name.startswith(_ARM)]
        if key.startswith(("reference.", "draft.")):
            arms = [name for name in arms if name != QUALIFIER]
        return [*STAGES[first:], *(arms if first < STAGES.index("draft") else ())]

    def _claim_new(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {self.path} cannot be made: {error.strerror}") from None
        for name in (*STAGES, self.tokenizer.name):
            if (self.path / name).exists():
                raise UserError(f"{self.path} has a {name} that no run of ours made; use another --workdir")

    def clear(self) -> None:
        """Takes away what killed runs began, and the checkpoints of a stage that was finished when they were killed."""
        files.clear_beginnings(self.path)
        for record in self.path.glob("*/stage.json"):
            shutil.rmtree(record.parent / "checkpoints", ignore_errors=True)

    def stage(self, name: str) -> Path:
        return self.path / name

    def finished(self, name: str) -> dict[str, Any] | None:
        """What stage.json records of a finished stage, else None; UserError where its files changed since."""
        directory = self.stage(name)
        if not (directory / "stage.json").is_file():
            return None
        record = _read(directory / "stage.json")
        sums = record.pop(_FILES, {})
        if not isinstance(sums, dict):
            raise UserError(f"{directory / 'stage.json'} is damaged; copy it back, or delete {directory} to redo it")
        for file, sha256 in sums.items():
            if not (directory / file).is_file() or files.sha256(directory / file) != sha256:
                raise UserError(
                    f"{directory / file} is damaged: it is not what the finished stage wrote; copy it back, or delete "
                    f"{directory} to redo it"
                )
        return record

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """The stage's other files are there. Weights carry checksums of their own, and users may edit the rest."""
        directory = self.stage(name)
        kept = [directory / file for file in _SEALED if (directory / file).is_file()]
        _write(directory / "stage.json", record | {_FILES: {file.name: files.sha256(file) for file in kept}})

    def begin(self, name: str, examples: dict[str, str]) -> None:
        """Notes what text a stage is trained on, before its first checkpoint."""
        self.decide(_EXAMPLES + name, examples)

    def trained_on(self, name: str) -> dict[str, Any]:
        """`examples_sha256` and `tokens_sha256` a stage was trained on, to its end or so far; {} where it was not."""
        begun = self.decision(_EXAMPLES + name) if self._holds_work(name) else None
        return self.finished(name) or begun or {}

    def vocab_size(self, name: str) -> int | None:
        """Vocabulary rows of a finished stage's model; None of one that is not finished."""
        return None if self.finished(name) is None else _read(self.stage(name) / "config.json")["vocab_size"]

    def draft_length(self) -> int | None:
        """Guesses per round that the run measured with, or will; None where it has not chosen them yet."""
        measured = self.report().get("speed", {}).get("draft_length")
        return measured or self.settings_of("draft").get("evaluation.draft_length") or None

    def settings_of(self, name: str) -> dict[str, Any]:
        """What the run's config says, by key; the settings of a further draft stand in the place of the draft's own."""
        file = self.path / "config.json"
        settings = _read(file) if file.is_file() else {}
        arm = {} if name == QUALIFIER else self.decision(_ARM + name) or {}
        return settings | {f"draft.{key}": value for key, value in arm.items()}

    def report(self) -> dict[str, Any]:
        """The finished run's report.json; {} where there is none."""
        file = self.path / "report.json"
        return _read(file) if file.is_file() else {}

    def decision(self, name: str) -> dict[str, Any] | None:
        """What an earlier session of this run chose where the config says "auto"."""
        return self._decisions().get(name)

    def decide(self, name: str, decision: dict[str, Any]) -> None:
        _write(self.path / "decisions.json", self._decisions() | {name: decision})

    def _decisions(self) -> dict[str, Any]:
        file = self.path / "decisions.json"
        return _read(file) if file.is_file() else {}

    def load(self, name: str, *, dtype="float32") -> models.CausalLM:
        """A finished stage's model; `UserError` says which stages there are."""
        if self.finished(name) is None:
            made = sorted(file.parent.name for file in self.path.glob("*/stage.json"))
            said = f"{self.path} has no finished {name} stage (finished: {', '.join(made) or 'none'})"
            first = f"; run {called_as('train')} with --workdir {self.path} first"
            raise UserError(f"{said}{nearest(name, made) or first}")
        with working(f"loading {self.stage(name)}", said_in_a_log=False):
            return models.load(self.stage(name), dtype=dtype)

    def weights_sha256(self, name: str) -> str:
        """Of a stage's weights (hex)."""
        return files.weights_sha256(self.stage(name))

    def finished_report(self, evaluation: Evaluation, data: Data, stages: Sequence[str]) -> dict[str, Any] | None:
        """The report of an earlier run of this config, if it measured the same and nothing is missing."""
        file = self.path / "report.json"
        if not (file.is_file() and (self.path / "report.html").is_file() and all(map(self.finished, stages))):
            return None
        try:
            report = files.parsed(file.read_text(encoding="utf-8"))
            whole = self.decision(_REPORT) in (None, self._report_sums())
            same = report["settings"]["evaluation"] == json.loads(json.dumps(vars(evaluation)))
            same &= all(
                files.sha256(path, unpacked=True) == sha256 for path, sha256 in _read_from(data, report["data"])
            )
            same &= report["stages"] == {name: self.finished(name) for name in stages}
        except (UserError, ValueError, KeyError, TypeError, OSError, EOFError, zlib.error):
            return None  # damaged or moved: looked at again
        return report if same and whole else None

    def seal_report(self) -> None:
        """The report as it is now is the one that a later run finds; any other is measured anew."""
        self.decide(_REPORT, self._report_sums())

    def report_is_sealed(self) -> bool:
        """Whether it is as it was when it was sealed."""
        return self.decision(_REPORT) == self._report_sums()

    def _report_sums(self) -> dict[str, str]:
        names = ("report.json", "report.html", "counts.json", evidence.FILE)
        return {name: files.sha256(self.path / name) for name in names if (self.path / name).is_file()}

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    def seal_tokenizer(self, directory: Path) -> None:
        """The tokenizer that is becoming this run's."""
        self.decide(_TOKENIZER, _sums_of(directory))

    def check_tokenizer(self) -> None:
        """UserError where it is not what this run made."""
        made = self.decision(_TOKENIZER)
        if made not in (None, ours := _sums_of(self.tokenizer)):
            name = next(name for name in sorted({*made, *ours}) if made.get(name) != ours.get(name))
            raise UserError(
                f"{self.tokenizer / name} is damaged: it is not what this run made, and its stages are trained with "
                f"that; copy it back, or delete {self.tokenizer} to have it made again"
            )

    @property
    def teacher(self) -> Path:
        """What frozen models say, where it is stored."""
        return self.path / "teacher"

    def _holds_work(self, name: str) -> bool:
        checkpoints = self.stage(name) / "checkpoints"
        saved = checkpoints.is_dir() and any(step.name.isdigit() for step in checkpoints.iterdir())
        return saved or self.finished(name) is not None


def _read_from(data: Data, record: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """(path, recorded hash) of each file that the config names."""
    for name in ("train", "evaluation"):
        source = record[name]
        for text, part in zip(data.mixture, source.get("parts", ()), strict=False):
            if part["kind"] == "file" and (path := weighted(text)[0]) != part["task"]:
                yield Path(path).expanduser(), part["content_sha256"]
        path = getattr(data, name)
        if path is not None and not path.startswith("hf:"):
            yield Path(path).expanduser(), source["content_sha256"]
    if data.chat_template is not None and "chat_template_sha256" in record:
        yield Path(data.chat_template).expanduser(), record["chat_template_sha256"]


def _sums_of(directory: Path) -> dict[str, str]:
    """SHA-256 of the files in a directory, by name."""
    return {str(file.relative_to(directory)): files.sha256(file) for file in directory.rglob("*") if file.is_file()}


def _as_json(settings: Any) -> dict[str, Any]:
    """By key, as a file has them."""
    return json.loads(json.dumps(flatten(settings)))


def _first_stage_of(key: str) -> int:
    """Index in `STAGES` of the first stage a config key matters to."""
    if key.startswith(
        ("teacher", "answers.", "draft.init", "draft.layers", "draft.kind", "draft.head", "draft.architecture.")
    ):
        return STAGES.index("reference")
    owner = key.partition(".")[0]
    return STAGES.index(owner) if owner in STAGES else 0


def _read(file: Path) -> dict[str, Any]:
    value = files.read_sealed(file, mend="use another --workdir")
    value.pop(files.SEAL, None)
    return value


def _write(file: Path, value: Mapping[str, Any]) -> None:
    files.write_sealed(file, plain(value))
