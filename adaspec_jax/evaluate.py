"""python -m adaspec_jax.evaluate --target PATH --draft PATH --task NAME [--json OUT]

Acceptance, block efficiency and speed of any target and draft (Hugging Face directories or hub names) on a task's
held-out prompts, with intervals: the same measurement and report fields as a training run's.
"""

from __future__ import annotations

import argparse
import sys

from adaspec_jax.command_line import say_notes, take_knobs
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.knobs import MOST_GUESSES
from adaspec_jax.options import (
    AT_LEAST_NONE,
    COUNT,
    ROWS,
    SEED,
    TOKENS,
    add_conversation_options,
    add_sources,
    add_task_option,
    add_types,
    check_outputs,
    one_of,
    parse_arguments,
    parser_of,
    real,
    whole,
)
from adaspec_jax.program import called_as
from adaspec_jax.sampling_options import add_sampling, check_fits, sampling_of


@keeping("nothing is kept, for the report is written at the end: the same command begins anew")
def main() -> None:
    argv, knobs = take_knobs(sys.argv[1:])
    arguments = parse_arguments(_parser(), argv)
    _check(arguments)

    from adaspec_jax import data, methods, reporting
    from adaspec_jax.measuring.evaluation import evaluate
    from adaspec_jax.measuring.measure import MEASURED_HOW, PROBE_LENGTH
    from adaspec_jax.measuring.pair import load_given
    from adaspec_jax.measuring.placing import mesh_of
    from adaspec_jax.measuring.products import chosen, multiplied

    sampling = sampling_of(arguments)
    method = methods.find(
        arguments.method or (methods.method_for(arguments.draft) if arguments.draft else "vanilla")
    ).set(**knobs)
    accept = _lenience(arguments, method)
    mesh = mesh_of(arguments.mesh, arguments.batch_size)
    examples = _examples(arguments)
    loading = {name: getattr(arguments, name) for name in ("dtype", "datastore", "qualifier")}
    loading |= {"other_tokenizer": method.translates, "draft_length": arguments.draft_length or PROBE_LENGTH}
    given, ends = load_given(arguments.target, arguments.draft, **loading)
    check_fits(sampling, given.target.config.num_tokens)
    _check_chat(arguments, examples)
    chat = data.chat_of(examples, given.tokenizer, arguments.chat_template, arguments.template_options)
    how = ("batch_size", "max_length", "max_prompt_length", "max_new_tokens", "seed")
    products = chosen(arguments.matmul, mesh)
    found = evaluate(
        multiplied(given, products),
        method,
        examples,
        **{name: getattr(arguments, name) for name in how},
        sampling=sampling,
        ends=ends,
        mesh=mesh,
        accept=accept,
        choose_length=not arguments.draft_length,
        chat=chat,
    )
    found["notes"] += products.notes
    settings = {**vars(arguments), "knobs": dict(method.chosen), "eos_id": ends.recorded, "measured": MEASURED_HOW}
    report = found | {"settings": settings}
    if arguments.json is not None:
        reporting.write_json(arguments.json, report)
    say_notes(found["notes"])
    reporting.print_table(report)


def _lenience(arguments: argparse.Namespace, method):
    """The rule in place of the method's own; None where that stays."""
    from adaspec_jax.decoding import Lenient

    if arguments.lenience == 1:
        return None
    if not method.lossless:
        raise UserError(f"the method {method.label} has a lossy rule of its own; leave --lenience out")
    if arguments.shared_noise:
        raise UserError("--lenience has nothing to decide where --shared_noise settles the text; leave one of them out")
    try:
        return Lenient(arguments.lenience, arguments.lenience_form)
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("evaluate", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    add_sources(parser)
    parser.add_argument(
        "--method",
        help=f"default: vanilla, or KIND_chain with a head; see {called_as('benchmark')} --methods list; "
        "--method.KNOB=VALUE sets a knob",
    )
    add_task_option(parser, "", "columns")
    parser.add_argument("--data", help="a .jsonl or .jsonl.gz file, or hf:NAME:SPLIT (default: the task's own)")
    parser.add_argument("--prompt_column", help="any file, this column taken as it is")
    parser.add_argument("--answer_column", help="beside --prompt_column: measured prompts need no answers")
    add_conversation_options(parser)
    parser.add_argument("--split", default="test", help="of the task")
    parser.add_argument("--rows", help='a slice of the split, as in "0:800"')
    parser.add_argument("--seed", type=SEED, default=0, help="of a generated task and of sampling")
    parser.add_argument("--num_prompts", type=COUNT, default=200, help="the first of them")
    parser.add_argument("--batch_size", type=ROWS, default=8, help="rows that are decoded together")
    parser.add_argument(
        "--draft_length",
        type=whole(0, MOST_GUESSES),
        default=5,
        help="guesses per round; 0 takes the best by measured costs",
    )
    parser.add_argument("--max_new_tokens", type=TOKENS, default=128, help="of an answer, at most")
    add_sampling(parser)
    parser.add_argument(
        "--lenience", type=real(0, 1, above=True), default=1.0, help="below 1: lossy acceptance, by p / lenience"
    )
    parser.add_argument(
        "--lenience_form",
        **one_of("linear", "square", "exponential"),
        default="linear",
        help="see decoding.Lenient",
    )
    parser.add_argument("--max_length", type=TOKENS, default=512, help="longer prompts are left out")
    parser.add_argument(
        "--max_prompt_length",
        type=AT_LEAST_NONE,
        default=0,
        help="above 0: longer prompts lose tokens from their middle",
    )
    add_types(parser)
    parser.add_argument("--json", help="where the report goes")
    parser.add_argument("--mesh", help="as in data=2,tensor=4; default: rows over as many devices as divide them")
    return parser


def _examples(arguments: argparse.Namespace):
    from adaspec_jax import data

    return data.load_examples(
        arguments.task or "columns",
        arguments.split,
        path=arguments.data,
        prompt_column=arguments.prompt_column,
        answer_column=arguments.answer_column,
        assistants=arguments.assistant_roles,
        rows=arguments.rows,
        num=arguments.num_prompts,
        seed=arguments.seed,
    )


def _check_chat(arguments: argparse.Namespace, examples) -> None:
    """Options that would do nothing."""
    from adaspec_jax import data

    talks = sum(isinstance(example, data.chat.Conversation) for example in examples)
    if talks and arguments.max_prompt_length:
        raise UserError("--max_prompt_length would tear a conversation apart; raise --max_length instead")
    for option in ("chat_template", "template_options", "assistant_roles"):
        if not talks and getattr(arguments, option):
            raise UserError(f"--{option} is for conversations, and {examples.description['name']} has none")


def _check(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported."""
    check_outputs(arguments, "json")
    if arguments.task is None and arguments.prompt_column is None:
        raise UserError("--task is missing: name one, or give --data with --prompt_column")
    if arguments.lenience != 1 and not arguments.temperature:
        raise UserError("--lenience changes nothing in greedy decoding; give a --temperature above 0")
    if arguments.max_prompt_length >= arguments.max_length:
        raise UserError(f"--max_prompt_length {arguments.max_prompt_length} must be below --max_length")


if __name__ == "__main__":
    exit_with_one_line(main)
