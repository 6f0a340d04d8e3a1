"""Tasks: how a row of a data set becomes a prompt and an answer. One table row per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from adaspec_jax.data import word_problems
from adaspec_jax.errors import UserError, did_you_mean

Row = Mapping[str, str]


@dataclass(frozen=True)
class Example:
    """Text in, text out. Neither holds an end-of-text mark: that is added when they become tokens."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Task:
    """One data set: which columns of a row are read, what they become, and where rows can come from."""

    name: str
    columns: tuple[str, ...]  # those `format` reads: each must hold text that is not blank
    format: Callable[[Row], Example]
    splits: Mapping[str, str] = field(default_factory=dict)  # our split -> its name in tensorflow-datasets and the hub
    files: tuple[str, ...] = ("{split}",)  # stems below ADASPEC_DATA/<name>/, tried with .jsonl, .jsonl.gz, .json
    tfds: str | None = None  # builder name
    tfds_module: str | None = None  # imported to register the builder where TensorFlow is absent
    tfds_host: str | None = None  # asked first, because its downloader retries for minutes without a network
    hf: tuple[str, str | None] | None = None  # (hub id, configuration)
    generate: Callable[..., list[dict[str, str]]] | None = None  # (num, *, seed, split) -> rows
    generated_rows: Mapping[str, int] = field(default_factory=dict)  # how many, where the user does not say


_GSM8K_INSTRUCTION = "\nAnswer the above question. First think step by step and then answer the final number.\n"


def _gsm8k(row: Row) -> Example:
    """The strings of AdaSPEC's released training code."""
    return Example(row["question"] + _GSM8K_INSTRUCTION, row["answer"].replace("####", "The final answer is: "))


def columns_task(prompt_column: str, answer_column: str) -> Task:
    """The task of a user's own file: two columns, used as they are."""
    return Task(
        name="columns",
        columns=(prompt_column, answer_column),
        format=lambda row: Example(row[prompt_column], row[answer_column]),
    )


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="word_problems",
                columns=("question", "answer"),
                format=_gsm8k,
                splits={split: split for split in word_problems.SPLITS},
                generate=word_problems.generate,
                generated_rows={"train": 4000, "validation": 400, "test": 400},
            ),
            Task(
                name="gsm8k",
                columns=("question", "answer"),
                format=_gsm8k,
                splits={"train": "train", "test": "test"},
                tfds="gsm8k",
                tfds_module="tensorflow_datasets.text.gsm8k.gsm8k",
                tfds_host="https://raw.githubusercontent.com",
                hf=("openai/gsm8k", "main"),
            ),
        )
    }
)


def find_task(name: str) -> Task:
    """The task of that name; UserError with the nearest name otherwise."""
    if name not in TASKS:
        raise UserError(f'there is no task "{name}"{did_you_mean(name, TASKS)}')
    return TASKS[name]
