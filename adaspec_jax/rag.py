"""python -m adaspec_jax.rag --target PATH --draft PATH --questions FILE [--corpus FILE] --json OUT

Speculative RAG: the draft writes several answers, each from a few of a question's passages, and the target chooses the
best in one pass; beside it plain RAG, the target with all passages at once, with scores where answers are known.
Passages are found in a corpus by BM25, or are the question's own. Each question's row is kept beside the report as it
is done (OUT.rows.jsonl): the same command goes on where it was stopped, and with more questions from there.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from adaspec_jax.command_line import say_notes
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import (
    COUNT,
    SEED,
    TOKENS,
    add_dtype_option,
    add_template_options,
    check_outputs,
    parse_arguments,
    parser_of,
    whole,
)
from adaspec_jax.places import near_place

_FACTORS = ("draft", "consistency", "reflection")
_MEND = "delete it, or choose another --json"


@keeping("the rows of questions that were answered are kept beside --json: the same command goes on from there")
def main() -> None:
    arguments = parse_arguments(_parser())
    _check(arguments)

    from adaspec_jax import reporting
    from adaspec_jax.devices import sharding
    from adaspec_jax.devices.ahead_of_time import short_of_memory
    from adaspec_jax.files import Journal, write_json
    from adaspec_jax.measuring.evaluation import environment_of
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of, placed, rows_on
    from adaspec_jax.pipeline.whole_answers import SpeculativeRAG, summary

    found = _found(arguments)
    given, ends = load_given(arguments.target, [arguments.draft], dtype=arguments.dtype, takes_heads=False)
    wording, notes = _wording(arguments, given.tokenizer, ends)
    mesh = mesh_of("data=1", 1)
    knobs = {name: getattr(arguments, name) for name in ("drafts", "max_new_tokens", "factors")}
    rag = SpeculativeRAG(placed(given, mesh), ends, wording, place=rows_on(mesh), **knobs)
    for each in found:
        rag.check(each)
    say_notes([*notes_on(given), *notes])
    journal = Journal(_rows_of(arguments.json), _about(arguments, wording), what="run", mend=_MEND)
    left, done = found[len(journal.rows) :], min(len(journal.rows), len(found))
    tracked = reporting.track(len(found), description="speculative RAG", unit="question", initial=done)
    with short_of_memory("answering", "lower --drafts"), sharding.over(mesh), tracked as progress:
        for each in left:
            journal.add(rag.answered(each))
            progress.advance(1)
    rows = journal.rows[: len(found)]
    report = {"summary": summary(rows), "compile_seconds": rag.compile_seconds, "settings": vars(arguments)}
    report |= {"environment": environment_of(mesh), "questions": rows, "method": "speculative_rag", "lossless": False}
    write_json(arguments.json, report)
    print(_in_words(report["summary"]))


def _found(arguments: argparse.Namespace) -> list:
    """Every question with its passages, before a model is loaded: what is wrong with one is said at once."""
    from adaspec_jax.data.questions import read_questions
    from adaspec_jax.data.rows import read_rows
    from adaspec_jax.pipeline.whole_answers import find
    from adaspec_jax.retrieval import BM25

    questions = read_questions(arguments.questions, arguments.num_questions, column=arguments.question_column)
    retriever = None
    if arguments.corpus:
        rows, _ = read_rows(Path(arguments.corpus), (arguments.corpus_column,))
        retriever = BM25([row[arguments.corpus_column] for row in rows])
    sizes = {"most": arguments.passages, "drafts": arguments.drafts, "per_draft": arguments.per_draft}
    return [find(question, retriever, **sizes, seed=arguments.seed) for question in questions]


def _wording(arguments: argparse.Namespace, tokenizer, ends) -> tuple[Any, list[str]]:
    """How models are asked, and what is to be said of it."""
    from adaspec_jax import data
    from adaspec_jax.files import read_json
    from adaspec_jax.pipeline.rag_prompts import AsChat, AsText, Prompts

    prompts = Prompts.of(read_json(arguments.prompts), arguments.prompts) if arguments.prompts else Prompts()
    if not arguments.chat:
        return AsText(prompts, tokenizer), []
    template = data.chat.template_of(tokenizer, arguments.chat_template, arguments.template_options)
    return AsChat(prompts, template), data.chat.notes_on(template, ends)


def _about(arguments: argparse.Namespace, wording) -> dict[str, Any]:
    """What makes rows those of one run; the number of questions may grow."""
    import dataclasses

    from adaspec_jax.files import sha256
    from adaspec_jax.measuring.records import sums_of

    names = (
        "question_column",
        "corpus_column",
        "drafts",
        "per_draft",
        "passages",
        "max_new_tokens",
        "factors",
        "chat",
        "template_options",
        "seed",
        "dtype",
    )
    about = {name: getattr(arguments, name) for name in names}
    about |= {name: sums_of(getattr(arguments, name)) for name in ("target", "draft")}
    given = {name: getattr(arguments, name) for name in ("questions", "corpus", "chat_template")}
    about |= {name: sha256(file, unpacked=True) if file else None for name, file in given.items()}
    return about | {"prompts": dataclasses.asdict(wording.prompts)}


def _in_words(said: dict[str, Any]) -> str:
    ours, theirs, (low, high) = said["speculative_rag"], said["plain_rag"], said["speedup_ci95"]
    lines = [
        f"speculative RAG: {ours['seconds']:.3f} s a question (drafting {ours['drafting']:.3f}, scoring "
        f"{ours['scoring']:.3f}), plain RAG {theirs['seconds']:.3f}: {said['speedup']:.2f}x ({low:.2f} to {high:.2f}) "
        f"over {said['questions']} questions"
    ]
    if said["scored"]:
        low, high = said["gain_ci95"]
        lines += [
            f"right answers: {ours['score']:.1%}, plain RAG {theirs['score']:.1%}: {100 * said['gain']:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}) over {said['scored']} questions with known answers"
        ]
    return "\n".join(lines)


def _rows_of(report: str) -> Path:
    return Path(f"{report.removesuffix('.json')}.rows.jsonl")


def _check(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported."""
    for option in ("questions", "corpus"):
        if (file := getattr(arguments, option)) and not Path(file).is_file():
            raise UserError(f"--{option} {file}: there is no such file{near_place(file)}")
    for option in ("chat_template", "template_options"):
        if getattr(arguments, option) is not None and not arguments.chat:
            raise UserError(f"--{option} goes with --chat")
    check_outputs(arguments, "json")
    needed = [("sklearn", "scikit-learn")] * (arguments.per_draft > 1) + [("bm25s", "bm25s")] * bool(arguments.corpus)
    if missing := [name for module, name in needed if importlib.util.find_spec(module) is None]:
        raise UserError(f"passages are found and sorted by {' and '.join(missing)}: pip install {' '.join(missing)}")


def _factors(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    if not names or set(names) - set(_FACTORS):
        raise UserError(f'--factors is "{text}"; give some of {",".join(_FACTORS)}')
    return names


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("rag", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name; it judges, and answers in plain RAG")
    parser.add_argument("--draft", required=True, help="directory or hub name; it writes the drafts")
    parser.add_argument("--questions", required=True, help="a file of rows with a question, or Spec-Bench's")
    parser.add_argument("--question_column", default="question")
    parser.add_argument("--num_questions", type=COUNT, default=100, help="the first of them")
    parser.add_argument("--corpus", help="a file of rows with a passage each; default: the questions' own passages")
    parser.add_argument("--corpus_column", default="text")
    parser.add_argument("--passages", type=whole(1, 2**16), default=10, help="of a question, the best so many")
    parser.add_argument("--drafts", type=whole(1, 2**12), default=5, help="of a question")
    parser.add_argument(
        "--per_draft", type=whole(1, 2**12), default=2, help="passages of a draft, one from each of so many clusters"
    )
    parser.add_argument(
        "--factors", type=_factors, default=_FACTORS, help=f"of a score: {','.join(_FACTORS)}, or fewer"
    )
    parser.add_argument("--prompts", help='a JSON file of templates in place of the defaults: {"draft": "..."}')
    parser.add_argument("--chat", action="store_true", help="prompts go through the target's chat template")
    add_template_options(parser)
    parser.add_argument("--max_new_tokens", type=TOKENS, default=128, help="of a draft, and of plain RAG's answer")
    parser.add_argument("--json", required=True, help="where the report goes")
    parser.add_argument("--seed", type=SEED, default=0, help="of clusters and subsets")
    add_dtype_option(parser)
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
