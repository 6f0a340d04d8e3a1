"""What an online draft has learnt, as a directory: versions that appear whole, requests since the newest, an undo.

DIR is a draft like any other (config.json, model.safetensors), always a whole version, the newest but for a moment:

    DIR/learning.json                the pair it belongs to, by sums over weights; written last when DIR is begun
    DIR/versions/000000              the draft as it was given
    DIR/versions/000007              a version, float32: the draft's files, the optimiser's state, state.json
    DIR/requests.jsonl               requests that no version here has learnt from yet, as token ids
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adaspec_jax import files
from adaspec_jax.errors import UserError

SAYS = "learning.json"
STATE, WEIGHTS, OPTIMIZER = "state.json", "model.safetensors", "optimizer.safetensors"
UNDOS = ("last", "given")
_VERSIONS, _REQUESTS = "versions", "requests.jsonl"

Write = Callable[[Path], None]


def is_begun(directory: str | os.PathLike) -> bool:
    """Whether a draft has learnt there; UserError where other files are, which nothing may write among."""
    directory = Path(directory)
    if (directory / SAYS).is_file():
        return True
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is there, and is not what a draft has learnt: name a new directory")
    return False


def begin(directory: Path, about: Mapping[str, Any], *, draft: Write, given: Write) -> None:
    """DIR with the draft as it is given, all at once: a kill leaves no DIR. `draft` writes one, `given` its version."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    files.clear_beginnings_of(directory)
    with files.making_folder(directory) as folder:
        draft(folder)
        written = folder / _VERSIONS / _name(0)
        written.mkdir(parents=True)
        _write_version(written, {"requests": 0, "steps": 0, "compared": [], "before": None}, given)
        files.write_sealed(folder / SAYS, about)


class Learned:
    """A directory that was begun; for one process at a time."""

    def __init__(self, directory: str | os.PathLike) -> None:
        """What a killed process began is taken away, and DIR is its newest version."""
        self.directory = Path(directory)
        mend = "begin another directory with the draft as it was given"
        self.about = files.read_sealed(self.directory / SAYS, mend=mend)
        files.clear_beginnings(self.directory)
        self._settle()

    @property
    def versions(self) -> list[int]:
        """Those that are kept, the oldest first; of one that is being taken away the state goes first."""
        found = (self.directory / _VERSIONS).glob(f"*/{STATE}")
        return sorted(int(file.parent.name) for file in found if file.parent.name.isdecimal())

    def newest(self, damaged: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
        """The newest intact version and its state; newer ones go, and are said. UserError where there is none."""
        for version in reversed(self.versions):
            try:
                return version, self._state_of(version)
            except UserError as error:
                damaged(f"{error}; the version before it is taken")
                self._take_away(version)
                self._settle()
        raise UserError(f"{self.directory} has no version that is whole: begin another directory")

    def place_of(self, version: int) -> Path:
        return self.directory / _VERSIONS / _name(version)

    def add(self, version: int, state: Mapping[str, Any], write: Write, *, keep: int, rest: bool = False) -> None:
        """A version that `write` writes, and which is the draft from here on; beside version 0, so many are kept.

        Requests are forgotten, unless it has not learnt from the `rest` of them.
        """
        if self.place_of(version).exists():  # a kill while it was taken away
            shutil.rmtree(self.place_of(version))
        with files.making_folder(self.place_of(version)) as folder:
            _write_version(folder, {**state, "before": self.versions[-1]}, write)
        self._settle()
        if not rest:
            self.forget_requests()
        for old in [each for each in self.versions if each][:-keep]:
            self._take_away(old)

    def requests(self) -> files.Journal:
        """Those that came after the newest version."""
        mend = f"delete it: what it holds is not learnt yet, and {self.directory} stays as it is"
        about = {"target": self.about["target"], "draft": self.about["draft"]}
        return files.Journal(self.directory / _REQUESTS, about, what="pair", mend=mend)

    def forget_requests(self) -> None:
        (self.directory / _REQUESTS).unlink(missing_ok=True)

    def undo(self, how: str) -> int:
        """Takes back the last version, or all of them but the draft as it was `given`; which it is now."""
        *others, last = self.versions
        if not others:
            raise UserError(f"{self.directory}: nothing to undo: it is the draft as it was given")
        if how == "last" and others[-1] != self._state_of(last)["before"]:
            raise UserError(
                f"{self.directory}: the version before {last} is kept no more; --undo given takes back the draft as "
                "it was given"
            )
        self.forget_requests()
        for version in [last] if how == "last" else [last, *reversed(others[1:])]:
            self._take_away(version)
        self._settle()
        return self.versions[-1]

    def _state_of(self, version: int) -> dict[str, Any]:
        place = self.place_of(version)
        state = files.read_sealed(place / STATE, mend="take another version")
        for name, sha256 in state["sha256"].items():
            if not (place / name).is_file() or files.sha256(place / name) != sha256:
                raise UserError(f"{place / name} is damaged")
        return state

    def _take_away(self, version: int) -> None:
        (self.place_of(version) / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.place_of(version))

    def _settle(self) -> None:
        """DIR's weights are the newest version's."""
        if not self.versions:
            raise UserError(f"{self.directory} has no version that is whole: begin another directory")
        newest, here = self.place_of(self.versions[-1]) / WEIGHTS, self.directory / WEIGHTS
        if newest.is_file() and files.sha256(newest) != files.sha256(here):
            with files.replacing(here) as temporary:
                shutil.copyfile(newest, temporary)


def _write_version(folder: Path, state: Mapping[str, Any], write: Write) -> None:
    write(folder)
    sums = {name: files.sha256(folder / name) for name in (WEIGHTS, OPTIMIZER)}
    files.write_sealed(folder / STATE, {**state, "sha256": sums})


def _name(version: int) -> str:
    return f"{version:06d}"
