"""The target's own answers in place of the data set's, sampled once before anything is distilled on them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaspec_jax import data, files, models, reporting
from adaspec_jax.config import Answers
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.own_turns import own_turns
from adaspec_jax.measuring.placing import for_decoding
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import Workdir


def targets_own(
    knobs: Answers,
    text: Text,
    target: models.CausalLM,
    *,
    workdir: Workdir,
    mesh: sharding.Mesh,
    batch_size: int,
    max_length: int,
    buckets: Sequence[int],
    seed: int,
) -> Text:
    """The text with the target's sampled answers; what an interrupted run has sampled is kept in DIR/answers.

    Rows are cut to `max_length` tokens. UserError where what lies there was sampled from something else.
    """
    how = _How(knobs, for_decoding(target, mesh), text, mesh, batch_size, max_length, tuple(buckets))
    asked = _Conversations(how) if text.chat else _Texts(how)
    order = sorted(range(len(asked.sizes)), key=asked.sizes.__getitem__)  # little padding
    blocks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    directory = workdir.path / "answers"
    origin = {
        "target": processes.once(lambda: workdir.weights_sha256("target")),
        "prompts": text.tokens_sha256,
        "temperature": knobs.temperature,
        "max_new_tokens": knobs.max_new_tokens,
        "seed": seed,
        "batch_size": batch_size,
        **asked.origin,
    }
    if text.ends.ids != (text.eos_id,):
        origin["ends of text"] = list(text.ends.ids)
    processes.once(lambda: _claim(directory, origin))
    root = seeds.answers(seed)
    found: dict[int, list[data.Encoded]] = {}
    names = [directory / f"{number:06d}.npz" for number in range(len(blocks))]
    there = processes.once(lambda: [_is_whole(file, asked.arrays) for file in names])
    done = sum(len(block) for block, whole in zip(blocks, there, strict=True) if whole)
    shown = {"description": "the target answers", "unit": asked.unit, "initial": done}
    with reporting.track(len(order), **shown) as progress:
        for number, (block, file) in enumerate(zip(blocks, names, strict=True)):
            if not there[number]:
                arrays = asked.sampled(block, jax.random.fold_in(root, number))
                processes.once(lambda file=file, arrays=arrays: _write(file, **arrays))
            arrays = processes.each(lambda file=file: _read(file, asked.arrays))
            found |= dict(zip(block, asked.rows(block, arrays), strict=True))
            progress.advance(0 if there[number] else len(block))
    rows = [row for i in sorted(found) for row in found[i]]
    if not rows:
        raise UserError("none of the target's answers has a token; raise data.max_length, or look at its chat template")
    supervised = sum(row.num_labels for row in rows)
    record = {"source": "target", "temperature": knobs.temperature, "supervised_tokens": supervised, "rows": len(rows)}
    record |= asked.counts
    asked.say()
    answered = replace(text, train=rows, record=text.record | {"answers": record})
    record |= answered.packed_counts
    answered.say_packed()
    return answered


@dataclass(frozen=True)
class _How:
    """How answers are sampled."""

    knobs: Answers
    target: models.CausalLM
    text: Text
    mesh: sharding.Mesh
    batch_size: int
    max_length: int
    buckets: tuple[int, ...]

    @property
    def decoding(self) -> dict[str, Any]:
        return {"max_new_tokens": self.knobs.max_new_tokens, "sampling": Sampling(self.knobs.temperature)}

    def place(self, rows: Any) -> Any:
        return sharding.shard_rows(sharding.my_rows(rows, self.mesh), self.mesh)


_SEVERAL = (
    'answers.source is "target", and some training rows are tokens already, of several turns, whose text nobody knows; '
    'take answers.source "dataset", or give the conversations'
)
_MIXED = (
    'answers.source is "target", and the training rows are conversations together with others; take answers.source '
    '"dataset", or one form alone'
)


def _check_context(how: _How, prompt: int, remedy: str) -> None:
    how.target.check_context(prompt + how.knobs.max_new_tokens, "the target", remedy)


class _Texts:
    """Prompts, each with one answer."""

    unit, arrays, origin, counts = "row", ("tokens", "lengths"), {}, {}

    def __init__(self, how: _How) -> None:
        self._how = how
        if any(isinstance(example, data.chat.Tokenised) and example.several for example in how.text.examples_of_train):
            raise UserError(_SEVERAL)
        self.sizes = [row.prompt_length for row in how.text.train]
        _check_context(how, max(self.sizes), "lower answers.max_new_tokens or data.max_prompt_length")

    def sampled(self, block: Sequence[int], key: jax.Array) -> dict[str, np.ndarray]:
        how = self._how
        rows, eos_id = [how.text.train[i] for i in block], how.text.eos_id
        [batch] = data.prompt_batches(rows, how.batch_size, buckets=how.buckets, pad_id=eos_id)
        prompts = Context(how.place(batch["tokens_BT"]), how.place(batch["lengths_B"]))
        made = generate(how.target, NoDraft(), prompts, key, eos_id=how.text.ends, **how.decoding)
        tokens_BS, lengths_B = processes.fetch((made.tokens_BS, made.lengths_B))
        return {"tokens": tokens_BS, "lengths": lengths_B}

    def say(self) -> None:
        """Every prompt is answered."""

    def rows(self, block: Sequence[int], arrays: dict[str, np.ndarray]) -> list[list[data.Encoded]]:
        found = []
        for i, tokens_S, end in zip(block, arrays["tokens"], arrays["lengths"], strict=False):
            kept = tokens_S[: min(int(end), self._how.max_length)]
            found.append([data.Encoded(np.asarray(kept, np.int32), self._how.text.train[i].prompt_length)])
        return found


class _Conversations:
    """The user's turns, answered one after another."""

    unit, arrays = "conversation", ("tokens", "prompts", "answers", "owners", "refused", "refused_turns")

    def __init__(self, how: _How) -> None:
        self._how = how
        self.examples = how.text.examples_of_train
        if not all(isinstance(example, data.chat.Conversation) for example in self.examples):
            raise UserError(_MIXED)
        # By turns first: a batch goes on until the conversation of most turns is over.
        self.sizes = [(len(talk.awaited()), sum(map(len, talk.texts))) for talk in self.examples]
        asked = sum(len(talk.awaited()) for talk in self.examples)
        self.counts = {"turns_asked": asked, "turns": 0, "turns_refused": 0}
        self.refused: list[str] = []  # where and why the template takes no more of a conversation
        _check_context(how, how.max_length, "lower data.max_length or answers.max_new_tokens")

    @property
    def origin(self) -> dict[str, Any]:
        template, record = self._how.text.chat.template, self._how.text.record["train"]
        tools = next((talk.tools for talk in self.examples if talk.tools), ())
        rendered = hashlib.sha256((template.jinja() + template.jinja(tools)).encode()).hexdigest()
        return {
            "chat template": rendered,
            "template options": dict(template.options),
            "examples": record["examples_sha256"],
            "max_length": self._how.max_length,
        }

    def sampled(self, block: Sequence[int], key: jax.Array) -> dict[str, np.ndarray]:
        how, refused = self._how, []
        talks = own_turns(
            how.target,
            [self.examples[i] for i in block],
            how.text.chat,
            rows=how.batch_size,
            longest=how.max_length - 1,
            ends=how.text.ends,
            key=key,
            place=how.place,
            refused=refused,
            **how.decoding,
        )
        turns = [(owner, turn) for owner, talk in enumerate(talks) for turn in talk]
        return {
            "tokens": np.array([token for _, turn in turns for token in (*turn.prompt, *turn.answer)], np.int32),
            "prompts": np.array([len(turn.prompt) for _, turn in turns], np.int32),
            "answers": np.array([len(turn.answer) for _, turn in turns], np.int32),
            "owners": np.array([owner for owner, _ in turns], np.int32),
            "refused": np.array([f"{each.where}: {each.why}" for each in refused], str),
            "refused_turns": np.array([each.turns for each in refused], np.int32),
        }

    def say(self) -> None:
        """How many turns are not asked, and why."""
        counts, longest = self.counts, self._how.max_length
        of_all = f"of {counts['turns_asked']} turns are not asked"
        if late := counts["turns_asked"] - counts["turns"] - counts["turns_refused"]:
            processes.say(f"answers: {late} {of_all}: what precedes them is longer than data.max_length {longest}")
        if counts["turns_refused"]:
            first = f"the chat template refuses what precedes them ({self.refused[0]})"
            processes.say(f"answers: {counts['turns_refused']} {of_all}: {first}")

    def rows(self, block: Sequence[int], arrays: dict[str, np.ndarray]) -> list[list[data.Encoded]]:
        turns: list[list[tuple[list[int], list[int]]]] = [[] for _ in block]
        place = 0
        columns = (arrays[name].tolist() for name in ("owners", "prompts", "answers"))
        for owner, prompt, answer in zip(*columns, strict=True):
            tokens = arrays["tokens"][place : place + prompt + answer].tolist()
            turns[owner].append((tokens[:prompt], tokens[prompt:]))
            self.counts["turns"] += 1
            place += prompt + answer
        self.counts["turns_refused"] += int(arrays["refused_turns"].sum())
        self.refused += arrays["refused"].tolist()
        how = {"max_length": self._how.max_length, "ends": self._how.text.ends.ids}
        return [data.chat.rows_of_answers(talk, self._how.text.chat, **how) for talk in turns]


def _claim(directory: Path, origin: dict) -> None:
    """Makes the directory, or finds it to be of this origin; `UserError` where it holds what is not."""
    file = directory / "origin.json"
    if not file.is_file() and not any(directory.glob("*.npz")):  # a kill may have left the beginning of a file
        return reporting.write_json(file, origin)
    before = files.read_json(file, mend=f"delete {directory} to have them sampled again") if file.is_file() else {}
    if differing := [key for key in origin if before.get(key) != origin[key]]:
        raise UserError(
            f"the answers in {directory} were sampled with another {differing[0]}; delete that directory to have them "
            "sampled again, or use another --workdir"
        )


def _write(file: Path, **arrays: np.ndarray) -> None:
    with files.replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **arrays)


def _is_whole(file: Path, names: Sequence[str]) -> bool:
    """Whether the file is there; one that is damaged is said to be, and sampled again."""
    try:
        return file.is_file() and bool(_read(file, names))
    except UserError as error:
        processes.say(f"answers: {error}")
        return False


def _read(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}); it is sampled again") from None
