"""python -m adaspec_jax.generate --target PATH [--draft PATH] --prompt TEXT

Continues a text with the target, speeded up by a draft if one is given, and says how many guesses were accepted; a
terminal shows which. Without --prompt, or with "-", the text is standard input. With --chat the prompt is what a user
says, rendered by the target's chat template; several prompts are the turns of one conversation, and without any they
are the lines of standard input. --interactive asks for one after another. With --learn the draft learns from them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from adaspec_jax.command_line import say_notes, take_knobs
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.generate_learning import Guessing, add_learning, check_learning, guessing, undo
from adaspec_jax.generate_screen import Screen, figures, interact, say_pace
from adaspec_jax.options import (
    AT_LEAST_NONE,
    GUESSES,
    SEED,
    TOKENS,
    add_profile,
    add_sources,
    add_task_option,
    add_template_options,
    add_types,
    parse_arguments,
    parser_of,
)
from adaspec_jax.program import called_as
from adaspec_jax.sampling_options import add_sampling, check_fits, sampling_of


@keeping("nothing is kept")
def main() -> None:
    argv, knobs = take_knobs(sys.argv[1:])
    arguments = parse_arguments(_parser(), argv)
    _check(arguments)
    if arguments.undo:
        return undo(arguments)
    from adaspec_jax.reporting import working

    with working("starting", said_in_a_log=False):
        importlib.import_module("adaspec_jax.measuring.writing")  # jax and all, which takes seconds
    from adaspec_jax import methods
    from adaspec_jax.devices import sharding
    from adaspec_jax.devices.tracing import traced
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of, placed
    from adaspec_jax.measuring.products import chosen, multiplied

    sampling = sampling_of(arguments)
    method = methods.find(arguments.method or methods.method_for(arguments.draft)).set(**knobs)
    mesh = mesh_of(arguments.mesh, 1)
    loading = {name: getattr(arguments, name) for name in ("dtype", "draft_length", "datastore", "qualifier")}
    loading["other_tokenizer"] = method.translates
    given, ends = load_given(arguments.target, arguments.draft, **loading)
    vocab_size = given.target.config.num_tokens
    check_fits(sampling, vocab_size)
    if (arguments.logprobs or 0) > vocab_size:
        raise UserError(f"--logprobs is {arguments.logprobs}; the vocabulary has {vocab_size} tokens")
    method.check(given)
    products = chosen(arguments.matmul, mesh)
    say_notes([*notes_on(given), *products.notes])

    def decoding(given):
        return placed(multiplied(given, products), mesh)

    with sharding.over(mesh), guessing(arguments, given, method, decoding) as (given, guesses):
        with traced(arguments.profile):
            (_converse if arguments.chat else _continue)(arguments, given, method, guesses, ends, sampling)


def _continue(arguments: argparse.Namespace, given, method, guesses: Guessing, ends, sampling) -> None:
    """The prompt, or one after another, and what follows it."""
    from adaspec_jax import data
    from adaspec_jax.measuring.evaluation import check_contexts
    from adaspec_jax.measuring.writing import Writing

    knobs = _knobs(arguments, sampling) | {"exact": False if arguments.exact is None else arguments.exact}
    screen = Screen(guesses=guesses.drafter.num_nodes > 0)
    prompts = [_prompt_of(arguments.task)] if arguments.task else arguments.prompt

    def answer(text: str) -> None:
        _check_text(text)
        tokens = data.prompt_ids(text, given.tokenizer)
        check_contexts(given, len(tokens) + arguments.max_new_tokens, "lower --max_new_tokens")
        writing = Writing(given, method, tokens, ends, stop=arguments.stop, drafter=guesses.drafter, **knobs)
        screen.write_pieces(text, writing.pieces())
        print()
        _say_logprobs(writing.made, len(tokens), given.tokenizer)
        print(figures(writing.made, writing.new_tokens), flush=True)
        say_pace(writing.pace)
        guesses.saw(writing.made, writing.new_tokens)

    if arguments.interactive:
        screen.explain()
        return interact(answer, None)
    for prompt in prompts:
        answer(prompt)
    screen.explain()


def _prompt_of(task: str) -> str:
    """The first held-out prompt of a task."""
    from adaspec_jax import data

    [example] = data.load_examples(task, "test", num=1)
    if isinstance(example, data.chat.Conversation):
        raise UserError(f"--task {task} has conversations; give --chat, and what the user says as --prompt")
    return example.prompt


def _converse(arguments: argparse.Namespace, given, method, guesses: Guessing, ends, sampling) -> None:
    """Each turn of the user, and the answer to it."""
    from adaspec_jax import data
    from adaspec_jax.measuring.talk import Talk

    template = data.chat.template_of(given.tokenizer, arguments.chat_template, arguments.template_options)
    say_notes(data.chat.notes_on(template, ends))
    screen = Screen(guesses=bool(arguments.draft) or method.name != "plain")

    def begun() -> Talk:
        knobs = {"system": arguments.system, "drafter": guesses.drafter, **_knobs(arguments, sampling)}
        return Talk(given, method, template, ends, **knobs)

    talk = begun()

    def answer(turn: str) -> None:
        _check_text(turn)
        shown = "assistant: " if arguments.interactive else f"user: {turn.rstrip()}\nassistant: "
        screen.write_pieces(shown, talk.saying(turn.rstrip("\n")))
        print()
        made, new_tokens = talk.answer.made, talk.answer.new_tokens
        _say_logprobs(made, int(made.lengths_B[0]) - new_tokens, given.tokenizer)
        print(f"{figures(made, new_tokens)} {talk.answer.read} tokens read before\n", flush=True)
        say_pace(talk.pace)
        if guesses.saw(made, new_tokens):
            talk.change_drafter(guesses.drafter)

    def begin_anew() -> None:
        nonlocal talk
        talk = begun()

    screen.explain()
    if arguments.interactive:
        return interact(answer, begin_anew)
    for turn in arguments.prompt or filter(str.strip, sys.stdin):
        answer(turn)
    if len(talk.messages) < 2:
        raise UserError("nothing was said: give --prompt, or lines on standard input")


def _knobs(arguments: argparse.Namespace, sampling) -> dict:
    """What a text and a conversation are decoded with alike."""
    from adaspec_jax.decoding import Logprobs

    logprobs = None if arguments.logprobs is None else Logprobs(arguments.logprobs)
    asked = {name: getattr(arguments, name) for name in ("max_new_tokens", "seed")}
    return {"sampling": sampling, "logprobs": logprobs, **asked}


def _say_logprobs(made, start: int, tokenizer) -> None:
    """A line of JSON for each new token, where they were asked for."""
    from adaspec_jax.measuring.logprobs import of_row

    if made.logprobs is not None:
        for entry in of_row(made, 0, start, tokenizer):
            print(json.dumps(entry))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("what is to be said is not UTF-8") from None


def _check(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported."""
    prompts = arguments.prompt or []
    if arguments.chat and arguments.stop:
        raise UserError("--stop is for texts; a conversation's turns end where its template ends them")
    if arguments.interactive and prompts:
        raise UserError("--interactive asks for prompts; leave --prompt out")
    if arguments.task and (prompts or arguments.interactive or arguments.chat):
        raise UserError("--task has a prompt of its own; leave --prompt, --interactive and --chat out")
    if not arguments.chat:
        if len(prompts) > 1 and arguments.learn is None:
            raise UserError(
                "give one --prompt; several are the turns of a conversation, with --chat, or the texts that a draft "
                "learns from, with --learn"
            )
        for option in ("system", "chat_template", "template_options"):
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option} goes with --chat")
    if arguments.exact is not None and (arguments.chat or arguments.temperature):
        raise UserError("--exact is for a text at temperature 0; leave --chat or --temperature out")
    if any(not prompt.strip() for prompt in prompts):
        raise UserError("--prompt is empty; give at least one character")
    check_learning(arguments)
    if not arguments.undo:
        _take_input(arguments)


def _take_input(arguments: argparse.Namespace) -> None:
    """Standard input, where it is the prompt."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is said when it is looked at
    if arguments.prompt == ["-"]:
        arguments.prompt = None
    elif arguments.prompt or arguments.interactive or arguments.task:
        return
    elif sys.stdin.isatty():
        if not arguments.chat:
            raise UserError("there is no --prompt: give one, pipe a text in, or --interactive")
        arguments.interactive = True  # someone is there to be asked
    if not arguments.chat:
        text = sys.stdin.read().removesuffix("\n")
        if not text.strip():
            raise UserError("standard input is empty; pipe a text in, or give --prompt TEXT")
        arguments.prompt = [text]


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("generate", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    add_sources(parser)
    parser.add_argument(
        "--method",
        help="default: vanilla with a draft, KIND_chain with a head, else plain; see "
        f"{called_as('benchmark')} --methods list. "
        "--method.KNOB=VALUE sets one of its knobs",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="a text to go on with, - for standard input; with --chat, what the user says; several with --learn",
    )
    add_task_option(parser, "in place of --prompt the first held-out prompt of a task: ")
    parser.add_argument("--interactive", action="store_true", help="prompts are asked for, one after another")
    parser.add_argument("--stop", action="append", default=[], help="a text before which to stop; any number of them")
    parser.add_argument("--chat", action="store_true", help="prompts are turns of a conversation")
    parser.add_argument("--system", help="what the conversation begins with")
    add_template_options(parser)
    parser.add_argument("--draft_length", type=GUESSES, default=5, help="guesses in a row")
    parser.add_argument("--max_new_tokens", type=TOKENS, default=128, help="of an answer, at most")
    add_sampling(parser)
    add_learning(parser)
    parser.add_argument(
        "--logprobs",
        type=AT_LEAST_NONE,
        metavar="K",
        help="after the text a line of JSON for each new token: its log-probability in nats by the target's logits as "
        "they are, and the K likeliest tokens there",
    )
    parser.add_argument(
        "--exact",
        nargs="?",
        type=GUESSES,
        const=True,
        metavar="N",
        help="text that is to the bit that of every chain, and of plain decoding, with room for so many guesses in "
        "each target call; without a number, for as many as the method makes",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of sampling")
    add_types(parser)
    add_profile(parser)
    parser.add_argument("--mesh", help="as in tensor=4: models cut over so many devices; default: one device")
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
