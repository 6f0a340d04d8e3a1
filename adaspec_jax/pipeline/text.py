"""The text of a run as tokens: which examples, whose tokenizer, what was cut, dropped or shared."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from adaspec_jax import data, files, models
from adaspec_jax.config import Data, Draft, Target, Tokenizer
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError, nearest
from adaspec_jax.generation_config import NOTHING
from adaspec_jax.measuring.pair import check_own_tokenizer, has_another_tokenizer
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.examples import training_and_held_out
from adaspec_jax.pipeline.workdir import Workdir

_TRAINED = ("train", "characters")  # values of `tokenizer.init` that name no place
_OF_THE_RUN = (*_TRAINED, "target")


@dataclass(frozen=True)
class Text:
    """What the stages train on and what acceptance is measured on."""

    tokenizer: Any
    ends: data.Ends
    train: list[data.Encoded]
    held_out: list[data.Encoded]
    record: dict[str, Any]  # for the report
    examples_of_train: Sequence[data.AnyExample] = ()
    chat: data.chat.Chat | None = None  # how its conversations became rows, if it has such
    packing: Callable[[list[data.Encoded]], list[data.Encoded]] | None = None  # of examples into rows, if they are

    @cached_property
    def rows(self) -> list[data.Encoded]:
        """What batches and the teacher store are made of: the training examples, or packs of them."""
        return self.packing(self.train) if self.packing else self.train

    @property
    def rows_in_words(self) -> str:
        return "packed rows" if self.packing else "examples"

    @property
    def packed_counts(self) -> dict[str, int | float]:
        """Of the packs, for the report; {} where examples have rows of their own."""
        if not self.packing:
            return {}
        tokens, count = sum(len(row.tokens) for row in self.train), len(self.rows)
        return {"packed_rows": count, "tokens_per_packed_row": tokens / count}

    @property
    def eos_id(self) -> int:
        """What closes rows, and pads."""
        return self.ends.closing

    @property
    def train_sha256(self) -> str:
        """Of the training prompts and answers."""
        return self.record["train"]["examples_sha256"]

    @property
    def tokens_sha256(self) -> str:
        """Of the training rows as they are trained on."""
        return _sha256(self.rows)

    @property
    def examples(self) -> dict[str, str]:
        """`examples_sha256` and `tokens_sha256` of the data set's training examples."""
        return {key: self.record["train"][key] for key in ("examples_sha256", "tokens_sha256")}

    def say_packed(self) -> None:
        """How many rows share how many examples, where they do."""
        if self.packing:
            rows, tokens = self.packed_counts.values()
            examples = f"data: {len(self.train)} examples are packed into {rows} rows"
            processes.say(f"{examples}, of {tokens:.0f} tokens on average")

    def check_own_tokenizer(self, model: str, name: str) -> None:
        """`UserError` where the directory or hub name `model` comes with another tokenizer than the run's."""
        check_own_tokenizer(self.tokenizer, model, ("the run's tokenizer", f"the {name} {model}"))


def read_text(
    spec: Data,
    tokenizer_spec: Tokenizer,
    origins: Mapping[str, Target | Draft],
    *,
    workdir: Workdir,
    seed: int,
    for_prompts: bool = False,
) -> Text:
    """Training and held-out examples in the tokens of the run's tokenizer, which is kept in the workdir.

    `origins`: where "target" and "draft" come from; `seed` of the run, where generated tasks have none of their own.
    `for_prompts`: training rows are to be answered by the target before they are trained on, so that conversations of
    theirs need no answer, and are no more than what precedes the first one.
    """
    train, held_out, removed = processes.each(lambda: training_and_held_out(spec, seed))
    processes.once(lambda: _make_tokenizer(tokenizer_spec, origins, workdir, train, spec.chat_template))
    tokenizer = processes.each(lambda: data.load_tokenizer(workdir.tokenizer))
    for name, model in origins.items():
        if model.init == "random":
            data.check_fits(tokenizer, model.architecture.vocab_size, f"config.{name}.architecture")
    asked = NOTHING if origins["target"].init == "random" else models.asked_by(origins["target"].init)
    ends = data.ends_of_text(tokenizer, asked.ends, otherwise=asked.closing)
    knobs = {"max_length": spec.max_length, "max_prompt_length": spec.max_prompt_length}
    chat, day = chat_of(spec, tokenizer, train, None), None
    if chat is not None and chat.template.asks_for_the_date:  # a run that goes on another day renders as it began
        day = processes.once(lambda: _first_day(workdir))
        chat = chat_of(spec, tokenizer, train, day)
    knobs |= {"eos_id": ends.closing, "ends": ends.ids, "chat": chat}
    encode = data.encode_for_prompts if for_prompts else data.encode
    train_rows, train_counts = encode(train, tokenizer, **knobs)
    held_out_rows, held_out_counts = data.encode_for_prompts(held_out, tokenizer, **knobs)
    record = {
        "train": train.description | train_counts,
        "evaluation": held_out.description | held_out_counts,
        "tokenizer_sha256": data.fingerprint(tokenizer),
        **_of_template(spec, day),
        "notes": [*data.notes_on(tokenizer), *asked.notes],
        "contamination": {
            "rows_removed": removed,
            "shared_prompts_left": len(data.shared_prompts(train, held_out)),
        },
    }
    if train.description.get("part"):
        fewer = f"; {spec.held_out} were asked for, and a tenth is the most" if len(held_out) < spec.held_out else ""
        processes.say(f"data: {len(held_out)} of {len(train) + len(held_out)} rows are held out, by seed{fewer}")
    for reason, number in train_counts.get("left_out", {}).items():
        processes.say(f"data: {number} of {len(train)} training rows are left out: {reason}")
    if train_counts["truncated"]:
        processes.say(f"data: {train_counts['truncated']} training rows are cut to data.max_length {spec.max_length}")
    if removed:
        processes.say(f"data: {removed} training rows with an evaluation prompt are left out")
    for line in [*record["notes"], *_marks_kept(record["train"])]:
        processes.say(f"note: {line}")
    packing = partial(data.packed, length=spec.max_length, seed=seeds.packing(seed)) if spec.packing else None
    text = Text(tokenizer, ends, train_rows, held_out_rows, record, train.examples, chat, packing)
    record["train"] |= {"tokens_sha256": text.tokens_sha256, **text.packed_counts}
    text.say_packed()
    return text


def _of_template(spec: Data, day: str | None) -> dict[str, Any]:
    """What a report records of how conversations became text; `day`: what a template that writes the date was told."""
    record = {} if day is None else {"chat_date": day}
    if spec.chat_template is not None:
        record["chat_template_sha256"] = files.sha256(Path(spec.chat_template).expanduser())
    return record


def _marks_kept(counts: Mapping[str, Any]) -> list[str]:
    places = {"begun_already": "begin", "ended_already": "end"}
    return [
        f"data: {counts[key]} of {counts['examples']} training rows carry their own mark of the {place} of text, and "
        "get no second one"
        for key, place in places.items()
        if key in counts
    ]


def _sha256(rows: list[data.Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.int64([row.prompt_length, len(row.tokens)]).tobytes() + row.tokens.tobytes())
        if row.labels is not None:
            digest.update(row.labels.tobytes())
        if row.segments is not None:
            digest.update(row.segments.tobytes())
    return digest.hexdigest()


def _first_day(workdir: Workdir) -> str:
    """When this run first read its text (ISO)."""
    if (noted := workdir.decision("first day")) is None:
        noted = {"date": datetime.date.today().isoformat()}
        workdir.decide("first day", noted)
    return noted["date"]


def chat_of(spec: Data, tokenizer: Any, examples: data.Source, day: str | None) -> data.chat.Chat | None:
    """How the examples' conversations become rows, as on that day; None where there is none among them."""
    labels = data.chat.Labels(spec.chat.turns, spec.chat.end_of_turn, spec.chat.reasoning)
    date = None if day is None else datetime.date.fromisoformat(day)
    return data.chat_of(examples, tokenizer, spec.chat_template, spec.chat.options, labels, date=date)


def _make_tokenizer(
    spec: Tokenizer,
    origins: Mapping[str, Target | Draft],
    workdir: Workdir,
    train: data.Source,
    chat_template: str | None,
) -> None:
    """Trained on the text, and where that is conversations with their template; or taken from where `init` says."""
    if workdir.tokenizer.is_dir():
        return workdir.check_tokenizer()
    if spec.init in _TRAINED:
        texts = (text for example in train for text in example.texts)
        chat = any(isinstance(example, data.chat.Conversation) for example in train)
        template = data.chat.read_template(chat_template) if chat_template else data.chat.CHATML
        if spec.init == "train":
            tokenizer = data.train_bpe(texts, vocab_size=spec.vocab_size, chat_template=template if chat else None)
        elif chat:
            raise UserError('tokenizer.init is "characters", which has no marks of a conversation; use "train"')
        else:
            tokenizer = data.train_characters(texts)
        for name, model in origins.items():
            if model.init != "random" and has_another_tokenizer(model.init, tokenizer):
                raise UserError(
                    f'tokenizer.init is "{spec.init}", and the {name} {model.init} comes with a tokenizer of its own; '
                    f"set --config.tokenizer.init={model.init}"
                )
    elif spec.init == "target":
        if origins["target"].init == "random":
            raise UserError('tokenizer.init is "target", and target.init is random: a model from scratch has none')
        tokenizer = data.load_tokenizer(origins["target"].init)
    else:
        try:
            tokenizer = data.load_tokenizer(spec.init)
        except data.NoTokenizer as error:
            near = "" if "did you mean" in str(error) else nearest(spec.init, _OF_THE_RUN)
            raise UserError(f"{error}{near}") from error
    if chat_template:  # goes with every stage and export: what was trained by it is to be served by it
        tokenizer.chat_template = data.chat.read_template(chat_template)
    with files.making_folder(workdir.tokenizer) as unfinished:
        models.write_tokenizer(tokenizer, unfinished)
        workdir.seal_tokenizer(unfinished)
