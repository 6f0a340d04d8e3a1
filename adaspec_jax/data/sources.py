"""Where a task's rows come from: a file, a generator, ADASPEC_DATA, tensorflow-datasets or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaspec_jax.data import tfds_jsonl
from adaspec_jax.data.faults import read_each
from adaspec_jax.data.hub import PREFIX, HubName, Unavailable, parse, rows_from_hub, short
from adaspec_jax.data.network import reachable
from adaspec_jax.data.rows import SUFFIXES, Row, checked_row, parse_rows, read_rows
from adaspec_jax.data.tasks import CHAT, AnyExample, Task, chat_task, check_one_form, columns_task, find_task, text_task
from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.places import near_place

VIAS = ("file", "generated", "tfds", "hf")


@dataclass(frozen=True)
class Source(Sequence):
    """Examples, and for the report where they came from."""

    examples: tuple[AnyExample, ...]
    # task, split, kind (one of VIAS), name (file, builder or hub id), rows (kept), rows_available, slice, seed,
    # content_sha256 (unpacked file; None elsewhere), examples_sha256 (of the kept prompts and answers, any kind)
    description: dict[str, str | int | None]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index]

    def __iter__(self) -> Iterator[AnyExample]:
        return iter(self.examples)


def load_examples(
    task: str | Task,
    split: str = "train",
    *,
    path: str | os.PathLike | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    text_column: str | None = None,
    assistants: Sequence[str] = (),
    rows: str | None = None,
    num: int | None = None,
    seed: int = 0,
    via: str | None = None,
) -> Source:
    """The examples of a task's split, from the first of these that has them.

    1. `path`: a file of JSON lines (`.jsonl`, `.jsonl.gz`) or one JSON list (`.json`), or a directory with a file per
       split; or "hf:NAME:SPLIT", any data set on the hub. `prompt_column`, with or without `answer_column`, or
       `text_column` makes any such rows a task, whatever `task` says; of the task "chat", `assistants` are further
       roles of the assistant.
    2. The task's generator, with `seed`.
    3. `ADASPEC_DATA/<task>/<split>.jsonl` (or `.jsonl.gz`, `.json`).
    4. tensorflow-datasets, where the task has a builder (rows come in the builder's order, not the file's).
    5. Hugging Face `datasets`.

    `rows="0:800"` keeps a slice, `num` at most so many (and tells a generator how many). `via` allows one way only:
    "file", "generated", "tfds" or "hf"; "tfds" with a `path` packs that file into array_record first and reads it back.
    UserError in one line where a row is malformed (file, line, column) or nothing has them (what was tried).
    """
    task = _resolve_task(task, prompt_column, answer_column, text_column, assistants)
    first, last = parse_rows(rows)
    if num is not None and num < 1:
        raise UserError(f"num must be at least 1, not {num}")
    if via is not None and via not in VIAS:
        raise UserError(f'there is no way to load data called "{via}"{did_you_mean(via, VIAS)}')
    if path is not None:
        found, origin = _from_path(task, split, path, via)
    else:
        wanted = _wanted(num, first, last)
        found, origin = _from_anywhere(task, split, via, wanted=wanted, seed=seed)
    kept = found[first:last][:num]
    if not kept:
        raise UserError(f'rows="{rows}" keeps nothing of the {len(found)} rows of {origin["name"]}')
    check_one_form(task, kept)
    examples = tuple(read_each(kept, task.format, where=_place))
    description = {
        "task": task.name,
        "split": split,
        **{"content_sha256": None, "seed": None},
        **origin,
        "rows": len(examples),
        "rows_available": len(found),
        "slice": rows,
        "examples_sha256": digest(examples),
    }
    return Source(examples, description)


def _place(row: dict) -> str:
    return getattr(row, "where", "a row")


def _resolve_task(
    task: str | Task,
    prompt_column: str | None,
    answer_column: str | None,
    text_column: str | None,
    assistants: Sequence[str],
) -> Task:
    if text_column is not None:
        if prompt_column is not None or answer_column is not None:
            raise UserError("give text_column, or prompt_column with answer_column, not both")
        return text_task(text_column)
    if answer_column is not None and prompt_column is None:
        raise UserError("answer_column needs a prompt_column beside it")
    if prompt_column is not None:
        return columns_task(prompt_column, answer_column)
    if task == CHAT:
        return chat_task(assistants)
    return task if isinstance(task, Task) else find_task(task)


def _wanted(num: int | None, first: int | None, last: int | None) -> int | None:
    """How many rows a generator must make for the slice and the number asked for."""
    return last if last is not None else None if num is None else num + (first or 0)


def _from_path(task: Task, split: str, path: str | os.PathLike, via: str | None) -> tuple[list[Row], dict]:
    if os.fspath(path).startswith(PREFIX):
        return _named_on_hub(task, os.fspath(path))
    path = Path(path).expanduser()
    if via not in (None, "file", "tfds"):
        raise UserError(f'via="{via}" does not read a path; leave one of them out')
    file = _split_file(task, split, path) if path.is_dir() else path
    if not file.exists():
        raise UserError(f"there is no data file {file}{near_place(file)}")
    return _read(task, split, file, packed=via == "tfds")


def _read(task: Task, split: str, file: Path, *, packed: bool = False) -> tuple[list[Row], dict]:
    rows, sha256 = read_rows(file, **task.reading)
    if packed:
        # Text is read from array_record from here on; the file's own rows have been checked with their line numbers.
        read = tfds_jsonl.read(file, **task.reading)
        rows = [Row(row | text, row.where) for row, text in zip(rows, read, strict=True)]
    kind = "tfds" if packed else "file"
    return _of_split(task, split, file, rows), {"kind": kind, "name": file.name, "content_sha256": sha256}


def _of_split(task: Task, split: str, file: Path, rows: list[Row]) -> list[Row]:
    """Those of the split, where the file is named as the task and so holds all of them."""
    if task.split_of is None or file.name.split(".")[0] != task.name:
        return rows
    if split not in task.splits:
        raise _no_split(task, split)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("task_id"), int):
            raise UserError(f'{file} row {number}: no number in column "task_id", which tells its split')
    return [row for row in rows if task.split_of(row) == split]


def _split_file(task: Task, split: str, directory: Path) -> Path:
    if found := _find_file(task, split, directory):
        return found
    raise UserError(f"{directory} has no {split}.jsonl (or .jsonl.gz, .json); it has: {_listing(directory)}")


def _find_file(task: Task, split: str, directory: Path) -> Path | None:
    """The file of a split, by the first name that is there; UserError where a pattern names several."""
    for name in _file_names(task, split):
        found = sorted(file for file in directory.glob(name) if file.is_file())
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise UserError(
                f"{directory} has several files for {task.name} {split}: {names}; give one as the data path"
            )
        if found:
            return found[0]
    return None


def _listing(directory: Path) -> str:
    there = sorted(file.name for file in directory.iterdir() if file.name.endswith(SUFFIXES))
    return ", ".join(there[:8]) or "nothing"


def _file_names(task: Task, split: str) -> list[str]:
    stems = [stem.format(split=split) for stem in task.files] + [task.name] * (task.split_of is not None)
    return [stem + suffix for stem in stems for suffix in SUFFIXES]


def _no_split(task: Task, split: str) -> UserError:
    remedy = '; take disjoint rows of it, as in rows="0:800"' if len(task.splits) == 1 else ""
    return UserError(f'{task.name} has no split "{split}"{did_you_mean(split, task.splits)}{remedy}')


def _from_anywhere(task: Task, split: str, via: str | None, *, wanted: int | None, seed: int) -> tuple[list[Row], dict]:
    if not task.splits:
        raise UserError(f"the task {task.name} needs a data file: set its path")
    if split not in task.splits:
        raise _no_split(task, split)
    ways = {
        "generated": lambda: _generated(task, split, wanted=wanted, seed=seed),
        "file": lambda: _from_data_folder(task, split),
        "tfds": lambda: _from_tfds(task, split),
        "hf": lambda: _from_hub(task, split),
    }
    tried = []
    for name in ways if via is None else [via]:
        try:
            return ways[name]()
        except Unavailable as reason:
            if str(reason):
                tried.append(str(reason))
    raise UserError(
        f"no data for {task.name} {split}: {'; '.join(tried) or f'it has no {via} source'}. "
        f"Mend it: give a .jsonl file as the data path, or put {task.name}/{split}.jsonl under ADASPEC_DATA"
    )


def _generated(task: Task, split: str, *, wanted: int | None, seed: int) -> tuple[list[Row], dict]:
    if task.generate is None:
        raise Unavailable
    made = task.generate(wanted or task.generated_rows[split], seed=seed, split=split)
    rows = [Row(row, f"{task.name} row {number}") for number, row in enumerate(made, 1)]
    return rows, {"kind": "generated", "name": task.name, "seed": seed}


def _from_data_folder(task: Task, split: str) -> tuple[list[Row], dict]:
    root = os.environ.get("ADASPEC_DATA")
    if not root:
        raise Unavailable("ADASPEC_DATA is not set")
    folder = task.folder or task.name
    directory = Path(root).expanduser() / folder
    if not directory.is_dir():
        raise Unavailable(f"ADASPEC_DATA has no {folder}/{split}.jsonl[.gz]")
    if file := _find_file(task, split, directory):
        return _read(task, split, file)
    raise Unavailable(f"ADASPEC_DATA has no {folder}/{split}.jsonl[.gz], only {_listing(directory)}")


def _from_tfds(task: Task, split: str) -> tuple[list[Row], dict]:
    if task.tfds is None:
        raise Unavailable
    try:
        tfds = tfds_jsonl.import_tfds()
        if task.tfds_module:
            importlib.import_module(task.tfds_module)
        with tfds_jsonl.quiet():
            builder = tfds.builder(task.tfds, file_format="array_record", data_dir=os.environ.get("TFDS_DATA_DIR"))
            if task.tfds_host and not builder.is_prepared() and not reachable(task.tfds_host):
                raise ConnectionError(f"{task.tfds_host} cannot be reached, nor is it in {builder.data_dir}")
            builder.download_and_prepare()
        found = builder.as_data_source(split=task.splits[split])
        rows = [tfds_jsonl.decode(row, (*task.columns, *task.renamed)) for row in found]
    except Exception as error:
        raise Unavailable(f"tensorflow-datasets {task.tfds} failed ({short(error)})") from error
    return _checked(task, rows), {"kind": "tfds", "name": builder.info.full_name}


def _from_hub(task: Task, split: str) -> tuple[list[Row], dict]:
    if task.hf is None:
        raise Unavailable
    name, config = task.hf
    rows = rows_from_hub(HubName(name, config, task.splits[split]))
    return _checked(task, rows), {"kind": "hf", "name": name}


def _named_on_hub(task: Task, name: str) -> tuple[list[Row], dict]:
    """The rows of "hf:NAME:SPLIT", read as the task says."""
    wanted = parse(name)
    try:
        rows = rows_from_hub(wanted)
    except Unavailable as reason:
        raise UserError(f"no data from {name}: {reason}. Mend it: give a .jsonl file as the data path") from None
    where = name.removeprefix(PREFIX)
    return _checked(task, rows, where), {"kind": "hf", "name": where}


def _checked(task: Task, rows: Sequence[Mapping], name: str | None = None) -> list[Row]:
    origin = name or task.name
    return [checked_row(row, where=f"{origin} row {n}", **task.reading) for n, row in enumerate(rows, 1)]


def digest(examples: Sequence[AnyExample]) -> str:
    """SHA-256 (hex) of all that they say, in order."""
    content = hashlib.sha256()
    for example in examples:
        content.update(json.dumps(example.content, separators=(",", ":")).encode() + b"\n")
    return content.hexdigest()
