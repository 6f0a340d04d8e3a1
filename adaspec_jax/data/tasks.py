"""Tasks: how a row of a data set becomes a prompt and an answer. One table row per task."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaspec_jax.data import signals, word_problems
from adaspec_jax.data.chat.conversation import ASSISTANT, Conversation, Tokenised, form_of, read_row
from adaspec_jax.errors import UserError, did_you_mean

Row = Mapping[str, str]
CHAT = "chat"


@dataclass(frozen=True)
class Example:
    """Text in, text out. Neither holds an end-of-text mark: that is added when they become tokens."""

    prompt: str
    answer: str
    tests: str = field(default="", compare=False)  # a program's: assertions, by which its answer may be scored

    @property
    def texts(self) -> tuple[str, ...]:
        return self.prompt, self.answer

    @property
    def content(self) -> list[str]:
        """All of it, as JSON has it."""
        return [self.prompt, self.answer]


AnyExample = Example | Conversation | Tokenised


@dataclass(frozen=True)
class Task:
    """One data set: which columns of a row are read, what they become, and where rows can come from."""

    name: str
    columns: tuple[str, ...]  # those `format` reads: each must hold text that is not blank
    format: Callable[[Row], AnyExample]
    splits: Mapping[str, str] = field(default_factory=dict)  # our split -> its name in tensorflow-datasets and the hub
    may_be_empty: tuple[str, ...] = ()  # columns that may be blank, or absent
    renamed: Mapping[str, str] = field(default_factory=dict)  # what other sources call a column -> our name of it
    folder: str | None = None  # below ADASPEC_DATA; None: the name
    # Stems below that folder, tried with .jsonl, .jsonl.gz, .json; a "*" stands for anything.
    files: tuple[str, ...] = ("{split}", "{split}_*")
    split_of: Callable[[Mapping], str] | None = None  # of a row in a file named as the task, which holds all splits
    tfds: str | None = None  # builder name
    tfds_module: str | None = None  # imported to register the builder where TensorFlow is absent
    tfds_host: str | None = None  # asked first, because its downloader retries for minutes without a network
    hf: tuple[str, str | None] | None = None  # (hub id, configuration)
    generate: Callable[..., list[dict[str, str]]] | None = None  # (num, *, seed, split) -> rows
    generated_rows: Mapping[str, int] = field(default_factory=dict)  # how many, where the user does not say
    form_of: Callable[[Row], str | None] | None = None  # of several forms a row's; all rows of a source have one

    @property
    def reading(self) -> dict:
        """What `read_rows` must know of the columns."""
        return {"columns": self.columns, "may_be_empty": self.may_be_empty, "renamed": self.renamed}


_GSM8K_INSTRUCTION = "\nAnswer the above question. First think step by step and then answer the final number.\n"


def _gsm8k(row: Row) -> Example:
    """The strings of AdaSPEC's released training code."""
    return Example(row["question"] + _GSM8K_INSTRUCTION, row["answer"].replace("####", "The final answer is: "))


_ALPACA = (
    "Below is an instruction that describes a task{context}. "
    "Write a response that appropriately completes the request.\n\n"
)


def _alpaca(row: Row) -> Example:
    """The two prompts of Stanford Alpaca's training code, with and without an input."""
    given = row["input"].strip()
    begin = _ALPACA.format(context=", paired with an input that provides further context" if given else "")
    asked = f"### Instruction:\n{row['instruction']}\n\n" + (f"### Input:\n{row['input']}\n\n" if given else "")
    return Example(f"{begin}{asked}### Response:", row["output"])


def _alpaca_chat(row: Row) -> Conversation | Tokenised:
    """Ours: instruction and input are what the user says, with an empty line between them."""
    asked = "\n\n".join(part for part in (row["instruction"].strip(), row["input"].strip()) if part)
    turns = [{"role": "user", "content": asked}, {"role": ASSISTANT, "content": row["output"]}]
    return read_row({"messages": turns}, getattr(row, "where", ""))


def _mbpp(row: Row) -> Example:
    """Ours: the problem's text and one line in the manner of GSM8K's; carriage returns of the code are left out."""
    listed: Any = row.get("test_list") or []
    tests = [row.get("test_setup_code") or "", *(listed if isinstance(listed, list | tuple) else [None])]
    if not all(isinstance(test, str) for test in tests):
        raise UserError(f"{getattr(row, 'where', 'mbpp')}: test_setup_code must be text, and test_list a list of texts")
    asked = row["text"] + "\nWrite a Python function that solves the above problem.\n"
    return Example(asked, _unix(row["code"]), _unix("\n".join(tests)).strip())


def _mbpp_split(row: Mapping) -> str:
    """Of the row's task_id (Austin et al., arXiv 2108.07732, section 2.1)."""
    number = row["task_id"]
    return "prompt" if number <= 10 else "test" if number <= 510 else "validation" if number <= 600 else "train"


def _summary(instruction: str) -> Callable[[Row], Example]:
    """Ours: the document and one line in the manner of GSM8K's."""
    return lambda row: Example(f"{row['document']}\n{instruction}\n", row["summary"])


_OPENING_WORDS = 30  # of a story: fewer are too often the same


def _story(row: Row) -> Example:
    return _beginning(row["text"])


def _beginning(text: str) -> Example:
    """Ours: a text's first sentences, and how it goes on."""
    text = _unix(text).strip()
    ends = (match.end() - 1 for match in re.finditer(r"[.!?][\"']?\s", text))
    at = next((end for end in ends if len(text[:end].split()) >= _OPENING_WORDS), len(text) // 2)
    return Example(text[:at], text[at:])


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def columns_task(prompt_column: str, answer_column: str | None = None) -> Task:
    """The task of a user's own file: two columns, used as they are; or prompts alone, whose answers are empty."""
    columns = (prompt_column,) if answer_column is None else (prompt_column, answer_column)
    return Task(
        name="columns",
        columns=columns,
        format=lambda row: Example(row[prompt_column], "" if answer_column is None else row[answer_column]),
    )


def text_task(column: str) -> Task:
    """The task of a user's own file of plain texts: each one's first sentences, and how it goes on."""
    return Task(name="text", columns=(column,), format=lambda row: _beginning(row[column]))


def chat_task(assistants: Sequence[str] = (ASSISTANT,)) -> Task:
    """Conversations, or rows that are tokens already. `assistants`: further roles that are the assistant's."""
    return Task(
        name=CHAT,
        columns=(),
        format=lambda row: read_row(row, assistants=assistants),
        form_of=form_of,
    )


TASKS: dict[str, Task] = {
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
        Task(
            name="alpaca",  # one split: take disjoint rows of it
            columns=("instruction", "input", "output"),
            may_be_empty=("input", "output"),  # a few have nothing to say
            format=_alpaca,
            splits={"train": "train"},
            files=("train", "alpaca_data", "alpaca_*"),
            hf=("tatsu-lab/alpaca", None),
        ),
        Task(
            name="alpaca_chats",  # the same rows for chat models
            columns=("instruction", "input", "output"),
            may_be_empty=("input", "output"),
            format=_alpaca_chat,
            splits={"train": "train"},
            folder="alpaca",
            files=("train", "alpaca_data", "alpaca_*"),
            hf=("tatsu-lab/alpaca", None),
        ),
        Task(
            name="mbpp",
            columns=("text", "code"),
            format=_mbpp,
            splits={split: split for split in ("train", "validation", "test", "prompt")},
            split_of=_mbpp_split,
            hf=("google-research-datasets/mbpp", "full"),
        ),
        Task(
            name="cnn_dailymail",
            columns=("document", "summary"),
            renamed={"article": "document", "highlights": "summary"},
            format=_summary("Summarize the above article in a few sentences."),
            splits={split: split for split in ("train", "validation", "test")},
            tfds="cnn_dailymail",
            tfds_module="tensorflow_datasets.summarization.cnn_dailymail",
            tfds_host="https://drive.google.com",
            hf=("abisee/cnn_dailymail", "3.0.0"),
        ),
        Task(
            name="xsum",  # tensorflow-datasets has it for those who download it by hand
            columns=("document", "summary"),
            format=_summary("Summarize the above article in one sentence."),
            splits={split: split for split in ("train", "validation", "test")},
            hf=("EdinburghNLP/xsum", None),
        ),
        Task(
            name="tinystories",
            columns=("text",),
            format=_story,
            splits={"train": "train"},
            files=("train", "tinystories_*"),
            hf=("roneneldan/TinyStories", None),
        ),
        Task(
            name="signals",
            columns=("opening", "rest"),
            format=lambda row: Example(row["opening"], row["rest"]),
            splits={split: split for split in signals.SPLITS},
            generate=signals.generate,
            generated_rows={"train": 4000, "validation": 200, "test": 200},
        ),
        chat_task(),
        Task(
            name="word_problem_chats",
            columns=(),
            format=read_row,
            form_of=form_of,
            splits={split: split for split in word_problems.SPLITS},
            generate=word_problems.generate_chats,
            generated_rows={"train": 2000, "validation": 200, "test": 200},
        ),
    )
}


def find_task(name: str) -> Task:
    """The task of that name; UserError with the nearest name otherwise."""
    if name not in TASKS:
        raise UserError(f'there is no task "{name}"{did_you_mean(name, TASKS)}')
    return TASKS[name]


def check_one_form(task: Task, rows: Sequence[Any]) -> None:
    """UserError at the first row that is of another form than the first."""
    if task.form_of is None:
        return
    first = task.form_of(rows[0])
    for row in rows:
        if first is not None and task.form_of(row) not in (first, None):
            raise UserError(
                f'{row.where}: this row has "{task.form_of(row)}" and those before it "{first}"; keep each form in a '
                "file of its own"
            )
