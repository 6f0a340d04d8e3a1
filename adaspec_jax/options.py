"""Options of the programs that argparse reads: their numbers' ranges, what several share, and where results may go."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adaspec_jax import voice
from adaspec_jax.config import MATMUL, MOST, MOST_ROWS, MOST_TOKENS
from adaspec_jax.errors import UserError, did_you_mean, nearest
from adaspec_jax.knobs import MOST_GUESSES
from adaspec_jax.places import near_place
from adaspec_jax.program import ShowVersions, called_as


class _Parser(argparse.ArgumentParser):
    """Its help says the default of every option that has one to say."""

    def format_help(self) -> str:
        for action in self._actions:
            helped, default = action.help or "", action.default
            told = default == argparse.SUPPRESS or isinstance(default, bool) or "default:" in helped
            if isinstance(default, str | int | float) and not told:
                # A sentence that says what a value means may itself say which is the default.
                said = "" if ", the default" in helped else f"default: {str(default).replace('%', '%%')}"
                action.help = f"{helped} ({said})" if helped and said else helped or said
        return super().format_help()


def parser_of(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Of a module that is run; its docstring but for the first line says what it does (None under `python -OO`)."""
    description = (doc or "").partition("\n\n")[2]
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog=called_as(command),
        description=description,
        formatter_class=formatter,
        epilog="In the name of an option - is as good as _.",
    )
    parser.add_argument("--version", action=ShowVersions)
    parser.add_argument("--quiet", action="store_true", help=voice.QUIET_HELP)
    parser.add_argument("--log_format", **one_of(*voice.FORMATS), default=voice.FORMATS[0], help=voice.FORMAT_HELP)
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed options, but those of how the command speaks, which hold from here on. Mistakes raise `UserError`."""

    def complain(message: str):
        of_a_value = re.fullmatch(r"argument (\S+): (is .*)", message, re.DOTALL)
        raise UserError(" ".join(of_a_value.groups()) if of_a_value else f"{message}; see --help")

    parser.error = complain
    arguments = parser.parse_args(_in_one_spelling(parser, sys.argv[1:] if argv is None else argv))
    speaking = vars(arguments)
    voice.speak(quiet=speaking.pop("quiet"), log_format=speaking.pop("log_format"))
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        if "" in (value if isinstance(value, list) else [value]):
            raise UserError(f"{action.option_strings[-1]} is empty; give a value, or leave it out")
    return arguments


def _in_one_spelling(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """The arguments with options as the parser has them; UserError for one that it does not have.

    What may be a value stays as it is: argparse, too, takes for one what has a space and is no option's beginning.
    """
    known = [option for action in parser._actions for option in action.option_strings]
    found = []
    for number, argument in enumerate(argv):
        if argument == "--":
            return [*found, *argv[number:]]
        name = spelt(argument).partition("=")[0]
        if name.startswith("--") and any(option.startswith(name) for option in known):
            argument = spelt(argument)
        elif name.startswith("--") and " " not in argument:
            raise UserError(f"there is no option {name}{nearest(name, known) or '; see --help'}")
        found.append(argument)
    return found


def spelt(argument: str) -> str:
    """An option with _ for every - in its name; its value, and what is no option, stays."""
    name, equals, value = argument.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else argument


def one_of(*choices: str) -> dict[str, Any]:
    """`type` and `metavar` of an option that takes one of these, and names the nearest for any other."""
    return {"type": partial(_one_of, choices), "metavar": f"{{{','.join(choices)}}}"}


def _one_of(choices: Sequence[str], text: str) -> str:
    if text not in choices:
        raise argparse.ArgumentTypeError(f'is "{text}"{did_you_mean(text, choices)}')
    return text


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """The `type` of an option that is a whole number in this range."""
    return partial(_number, int, least, most)


def real(least: float, most: float, *, above: bool = False, below: bool = False) -> Callable[[str], float]:
    """The `type` of an option that is a number in this range; `above`, `below`: and not its lower, its upper end."""
    return partial(_number, float, least, most, above=above, below=below)


def _number(kind: type, least: float, most: float, text: str, *, above: bool = False, below: bool = False) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text[:40]}; give a {'whole ' if kind is int else ''}number") from None
    if value > least or (value == least and not above):
        if value < most or (value == most and not below):
            return value
        raise argparse.ArgumentTypeError(f"is {text}; it must be {'below' if below else 'at most'} {most:,}")
    raise argparse.ArgumentTypeError(f"is {text}; it must be {'above' if above else 'at least'} {least:,}")


def number_of(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """A number that argparse does not read; UserError that names the option."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--{option} {error}") from None


def numbers_of(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """Such numbers with commas between them; UserError that names the option."""
    return [number_of(option, part, kind) for part in text.split(",")]


SEED = AT_LEAST_NONE = whole(0)
COUNT = whole(1)
ROWS = whole(1, MOST_ROWS)  # of a batch
TOKENS = whole(1, MOST_TOKENS)  # to be written
GUESSES = whole(1, MOST_GUESSES)  # in a row


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """How conversations are rendered."""
    parser.add_argument("--chat_template", help="a Jinja file in place of the tokenizer's own template")
    parser.add_argument("--template_options", help="of the template, as JSON: '{\"enable_thinking\": false}'")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """What methods make their guesses of: draft models, and texts to copy from."""
    parser.add_argument(
        "--draft",
        action="append",
        default=[],
        help="directory or hub name, for the methods that need one, a draft model or a head; of several models the "
        "smallest drafts, and in a benchmark each other one, or other head of a kind, is METHOD@DRAFT",
    )
    parser.add_argument("--qualifier", help="the draft between the smallest and the target (default: the next larger)")
    parser.add_argument("--datastore", help=f"made by {called_as('datastore')}, for the methods that need one")


def add_conversation_options(parser: argparse.ArgumentParser) -> None:
    """How a file's conversations are rendered, and who in them is the assistant."""
    add_template_options(parser)
    parser.add_argument(
        "--assistant_roles",
        type=lambda names: tuple(name for name in names.split(",") if name),
        default=(),
        help="further names that the file has for the assistant, with commas between them",
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Where a trace of the decoding goes."""
    parser.add_argument("--profile", metavar="DIR", help="also write a trace of jax's profiler of all decoding there")


def add_types(parser: argparse.ArgumentParser) -> None:
    """In which type weights are held, and decoding multiplies."""
    add_dtype_option(parser)
    parser.add_argument(
        "--matmul",
        **one_of(*MATMUL),
        default=MATMUL[0],
        help=f"{', '.join(MATMUL)} (default: {MATMUL[0]}): bfloat16 with float32 sums, where the machine has matrix "
        "units for it; auto takes it there",
    )


TASKS = ("alpaca", "alpaca_chats", "chat", "cnn_dailymail", "gsm8k", "mbpp", "signals", "tinystories")
TASKS += ("word_problem_chats", "word_problems", "xsum")  # those of `data.TASKS`, which --help need not import


def add_task_option(parser: argparse.ArgumentParser, what: str = "", *more: str) -> None:
    """A task by its name."""
    named = ", ".join((*TASKS, *more))
    parser.add_argument("--task", type=one_of(*TASKS, *more)["type"], help=f"{what}{named}", metavar="NAME")


def add_dtype_option(parser: argparse.ArgumentParser, *more: str) -> None:
    """In which type weights are held."""
    parser.add_argument(
        "--dtype", **one_of("float32", "bfloat16", *more), default="float32", help="what weights are held in"
    )


def check_outputs(arguments: argparse.Namespace, *options: str) -> None:
    """`check_output` of these options, where they are given; UserError also for a file that another option names."""
    others: dict[str, str] = {}
    for name, value in vars(arguments).items():
        if name not in options:
            texts = value if isinstance(value, list) else [value]
            others |= {os.path.realpath(text): name for text in texts if isinstance(text, str)}
    for option in options:
        if (path := getattr(arguments, option)) is not None:
            check_output(path, option)
            if other := others.get(os.path.realpath(path)):
                raise UserError(f"--{option} and --{other} are the same file, {path}")
            others[os.path.realpath(path)] = option


def check_output(path: str, option: str) -> None:
    """UserError where no file can be written at `path`, said before hours are spent on what goes into it."""
    file = Path(path).absolute()
    if file.is_dir():
        raise UserError(f"--{option} {path} is a directory; name a file in it")
    if not file.parent.is_dir():
        raise UserError(f"--{option} {path}: there is no such directory{near_place(file.parent)}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"--{option} {path}: its directory cannot be written to")
