"""python -m adaspec_jax.datastore build --data FILE|--task NAME --tokenizer DIR --out DIR

Makes a datastore for the methods that copy from one (`rest`, `suffix`): the texts' tokens, and their suffixes in order.
Texts come from a file (.jsonl, .json, .parquet: the text of a row's columns; any other: all of it) or from a task's
training split. Those that hold an evaluation prompt are left out: a task's own, of its other splits, and those of
--held_out.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from adaspec_jax.command_line import say_notes
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import COUNT, add_task_option, one_of, parse_arguments, parser_of
from adaspec_jax.places import near_place


def main() -> None:
    arguments = parse_arguments(_parser())
    _check(arguments)

    from adaspec_jax import data, reporting, retrieval
    from adaspec_jax.data.contamination import holding
    from adaspec_jax.data.texts import ids_of

    with reporting.working("reading texts, and looking for evaluation prompts in them"):
        tokenizer = data.load_tokenizer(arguments.tokenizer)
        texts, source = _texts_of_task(arguments) if arguments.task else _texts_of_file(arguments)
        prompts, notes = _held_out(arguments)
        held = holding(texts, prompts)
    kept = [text for number, text in enumerate(texts) if number not in held]
    if not kept:
        raise UserError(f"all of the {len(texts)} texts hold evaluation prompts; take other rows")
    about = {"tokenizer": data.fingerprint(tokenizer), "source": source, "held_out": len(prompts), "removed": len(held)}
    with reporting.working(f"tokenising {len(kept):,} texts, and sorting their suffixes"):
        store = retrieval.write_store(arguments.out, ids_of(kept, tokenizer), **about)
    say_notes(notes)
    left_out = f"{len(held)} left out, which hold one of {len(prompts)} evaluation prompts" if prompts else "unchecked"
    print(f"{arguments.out}: {store.about['tokens']} tokens of {len(kept)} texts ({left_out})")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("datastore", __doc__)
    parser.add_argument("action", type=one_of("build")["type"], help="build")
    parser.add_argument("--data", help="a file of texts; with --task, the task's file")
    parser.add_argument("--columns", help="of a file of rows, with commas between them (default: all that are text)")
    add_task_option(parser)
    parser.add_argument("--split", default="train", help="of the task")
    parser.add_argument("--num", type=COUNT, help="at most so many rows, the first")
    parser.add_argument("--held_out", help="a file of evaluation prompts, as benchmark --prompts reads it")
    parser.add_argument("--tokenizer", required=True, help="the target's directory or hub name")
    parser.add_argument("--out", required=True, help="a new directory")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    if not (arguments.data or arguments.task):
        raise UserError("give --data FILE or --task NAME")
    if arguments.data and not arguments.task and not Path(arguments.data).is_file():
        raise UserError(f"--data {arguments.data}: there is no such file{near_place(arguments.data)}")
    if arguments.columns and arguments.task:
        raise UserError("--columns goes with --data alone; a task knows its own")
    if os.path.exists(arguments.out):
        raise UserError(f"--out {arguments.out} is there already; choose another")


def _texts_of_task(arguments: argparse.Namespace) -> tuple[list[str], dict]:
    """Each example's prompt and answer as one text, or what is said in a conversation."""
    from adaspec_jax import data

    where = {"path": arguments.data, "num": arguments.num}
    source = data.load_examples(arguments.task, arguments.split, **where)
    whole = {data.Example: "", data.chat.Conversation: "\n"}
    return [whole.get(type(example), "").join(example.texts) for example in source], source.description


def _texts_of_file(arguments: argparse.Namespace) -> tuple[list[str], dict]:
    from adaspec_jax.data.rows import SUFFIXES, read_rows
    from adaspec_jax.files import open_unpacked, sha256

    path = Path(arguments.data)
    columns = tuple(filter(None, (arguments.columns or "").split(",")))
    described = {
        "kind": "file",
        "name": path.name,
        "columns": list(columns),
        "content_sha256": sha256(path, unpacked=True),
    }
    if not path.name.endswith(SUFFIXES):
        with open_unpacked(path) as file:
            texts = [file.read().decode("utf-8", "replace")]
    else:
        rows = read_rows(path, columns)[0] if columns else _rows(path)
        texts = ["\n".join(row[name] for name in columns or row if isinstance(row[name], str)) for row in rows]
    texts = [text for text in texts if text.strip()][: arguments.num]
    if not texts:
        raise UserError(f"--data {path}: no text in it")
    return texts, described


def _rows(path: Path) -> list[dict]:
    """Rows of any columns, or bare texts."""
    from adaspec_jax.data.rows import read_rows

    try:
        return read_rows(path, ())[0]
    except UserError:
        return read_rows(path, ("text",))[0]


def _held_out(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """(evaluation prompts, what is to be said of them)."""
    from adaspec_jax import data
    from adaspec_jax.data.prompts import read_prompts

    prompts = [prompt.text for prompt in read_prompts(arguments.held_out)] if arguments.held_out else []
    if not arguments.task:
        unchecked = "no text was checked for evaluation prompts: give --held_out FILE"
        return prompts, [] if prompts else [unchecked]
    notes, others = [], [split for split in data.TASKS[arguments.task].splits if split != arguments.split]
    for split in others:
        try:
            prompts += [example.prompt for example in data.load_examples(arguments.task, split)]
        except UserError as error:
            notes.append(f"no text was checked for prompts of {arguments.task} {split}: {error}")
    if not others and not prompts:
        notes.append(f"{arguments.task} has no other split to check against: give --held_out FILE")
    return prompts, notes


if __name__ == "__main__":
    exit_with_one_line(main)
