"""python -m adaspec_jax.diagnose --workdir DIR

Why is my acceptance low? Walks a checklist with evidence, of a finished run, or of any pair (--target, --draft) on a
task's or a file's prompts: each line is ok, a cause, or cannot be told, with the number that supports it, and the
command to run next. The first line says the likeliest cause. What a run is served with may differ from its own
evaluation: --temperature, --dtype, --draft_length, --max_new_tokens, and --task or --data for the prompts.
"""

from __future__ import annotations

import argparse

from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import COUNT, GUESSES, ROWS, SEED, TOKENS, check_outputs, parse_arguments, parser_of, real

_OF_A_PAIR = ("target", "draft")
_SERVED = ("temperature", "dtype", "draft_length", "max_new_tokens", "guesses")

_GUESSES = ("drawn", "likeliest")


def main() -> None:
    arguments = parse_arguments(_parser())
    _check(arguments)

    from adaspec_jax.diagnosis.wording import in_words

    found = _of_run(arguments) if arguments.workdir else _of_pair(arguments)
    if arguments.json:
        from adaspec_jax import reporting

        reporting.write_json(arguments.json, found)
    print(in_words(found))


def _of_run(arguments: argparse.Namespace) -> dict:
    from adaspec_jax.pipeline.diagnosed import diagnose_run

    served = {name: value for name in _SERVED if (value := getattr(arguments, name)) is not None}
    prompts = _examples(arguments, arguments.data) if arguments.task or arguments.data else None
    said = {name: getattr(arguments, name) for name in ("task", "data", "prompt_column", "split")} if prompts else None
    return diagnose_run(arguments.workdir, served=served, prompts=prompts, said=said, number=arguments.num_prompts)


def _of_pair(arguments: argparse.Namespace) -> dict:
    from adaspec_jax.diagnosis.evidence import Names, Served
    from adaspec_jax.diagnosis.examine import Asked, examine
    from adaspec_jax.diagnosis.judge import judge

    default = {"temperature": 0.0, "dtype": "float32", "draft_length": 5, "max_new_tokens": 128}
    default["guesses"] = _GUESSES[0]
    served = {name: value if (value := getattr(arguments, name)) is not None else default[name] for name in _SERVED}
    trained = _examples(arguments, arguments.train_data, split="train") if arguments.train_data else None
    asked = Asked(
        _examples(arguments, arguments.data),
        trained,
        arguments.num_prompts,
        arguments.max_length,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
    options = [f"--{name}={value}" for name in ("task", "data", "prompt_column") if (value := getattr(arguments, name))]
    names = Names(arguments.target, arguments.draft, " ".join([*options, f"--split={arguments.split}"]))
    return judge(examine(names, Served(**served), asked, {}))


def _examples(arguments: argparse.Namespace, path: str | None, *, split: str | None = None):
    from adaspec_jax import data

    return data.load_examples(
        arguments.task or "columns",
        split or arguments.split,
        path=path,
        prompt_column=arguments.prompt_column,
        answer_column=arguments.answer_column,
        num=None if path else arguments.num_prompts,
        seed=arguments.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("diagnose", __doc__)
    parser.add_argument("--workdir", help="of a finished run; the diagnosis is kept there as diagnosis.json")
    parser.add_argument("--target", help="directory or hub name, where there is no run")
    parser.add_argument("--draft", help="directory or hub name, a draft model or a head")
    parser.add_argument("--task", help="whose prompts are served (default: a run's own); see evaluate --help")
    parser.add_argument("--data", help="a .jsonl file, or hf:NAME:SPLIT, of the prompts that are served")
    parser.add_argument("--train_data", help="such a file of what the draft of a pair was trained on")
    parser.add_argument("--prompt_column", help="any file, this column taken as it is")
    parser.add_argument("--answer_column", help="beside --prompt_column, where the files have answers")
    parser.add_argument("--split", default="test", help="of the task")
    parser.add_argument("--seed", type=SEED, default=0, help="of a generated task and of sampling")
    parser.add_argument("--num_prompts", type=COUNT, default=48, help="of the served and of the training ones")
    parser.add_argument("--max_length", type=TOKENS, default=512, help="of a pair's rows; a run has its own")
    parser.add_argument("--temperature", type=real(0, 1e6), help="as it is served (default: the run's, or 0)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="as it is served")
    parser.add_argument("--draft_length", type=GUESSES, help="guesses per round, as it is served")
    parser.add_argument(
        "--guesses",
        choices=_GUESSES,
        help="what the draft proposes where the target is sampled: draws from its law, as here and in transformers, or "
        "its likeliest token, as in some engines",
    )
    parser.add_argument("--batch_size", type=ROWS, default=1, help="of a pair, as it is served; a run has its own")
    parser.add_argument("--max_new_tokens", type=TOKENS, help="of an answer")
    parser.add_argument("--json", help="where the diagnosis goes, with all its evidence")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported."""
    check_outputs(arguments, "json")
    given = [name for name in _OF_A_PAIR if getattr(arguments, name)]
    if arguments.workdir and given:
        raise UserError(f"--workdir has its own {given[0]}; give the run, or --target and --draft, not both")
    if arguments.workdir and arguments.train_data:
        raise UserError("--train_data is of a pair; a run knows what it was trained on")
    if not arguments.workdir:
        missing = [name for name in _OF_A_PAIR if not getattr(arguments, name)]
        if missing:
            raise UserError(f"--{missing[0]} is missing: give --workdir of a run, or --target and --draft")
        if arguments.task is None and arguments.prompt_column is None:
            raise UserError("--task is missing: name one, or give --data with --prompt_column")
    if arguments.answer_column and not arguments.prompt_column:
        raise UserError("--answer_column needs --prompt_column beside it")
    if arguments.prompt_column and not arguments.data:
        raise UserError("--prompt_column needs a file: give --data")
    if arguments.workdir and arguments.data and not (arguments.task or arguments.prompt_column):
        raise UserError("--data: say how its rows are read, by --task or --prompt_column")


if __name__ == "__main__":
    exit_with_one_line(main)
