"""python -m adaspec_jax.generate --target PATH [--draft PATH] --prompt TEXT

Continues a text with the target, speeded up by a draft if one is given, and says how many guesses were accepted. With
--chat the prompt is what a user says, rendered by the target's chat template; several prompts are the turns of one
conversation, and without any they are the lines of standard input.
"""

from __future__ import annotations

import argparse
import json
import sys

from adaspec_jax.command_line import say_notes, take_knobs
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import (
    AT_LEAST_NONE,
    GUESSES,
    SEED,
    TOKENS,
    add_matmul_option,
    add_profile,
    add_sources,
    add_template_options,
    parse_arguments,
    parser_of,
)
from adaspec_jax.sampling_options import add_sampling, check_fits, sampling_of


def main() -> None:
    argv, knobs = take_knobs(sys.argv[1:])
    arguments = parse_arguments(_parser(), argv)
    _check(arguments)

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
    given = placed(multiplied(given, products), mesh)
    say_notes([*notes_on(given), *products.notes])
    with sharding.over(mesh), traced(arguments.profile):
        (_converse if arguments.chat else _continue)(arguments, given, method, ends, sampling)


def _continue(arguments: argparse.Namespace, given, method, ends, sampling) -> None:
    """The one prompt, and what follows it."""
    from adaspec_jax import data
    from adaspec_jax.measuring.evaluation import check_contexts
    from adaspec_jax.measuring.writing import Writing

    [text] = arguments.prompt
    _check_text(text)
    tokens = data.prompt_ids(text, given.tokenizer)
    check_contexts(given, len(tokens) + arguments.max_new_tokens, "lower --max_new_tokens")
    knobs = _knobs(arguments, sampling) | {"exact": False if arguments.exact is None else arguments.exact}
    writing = Writing(given, method, tokens, ends, stop=arguments.stop, **knobs)
    print(text, end="", flush=True)
    for piece in writing:
        print(piece, end="", flush=True)
    print()
    _say_logprobs(writing.made, len(tokens), given.tokenizer)
    print(_in_words(writing.made, writing.new_tokens))


def _converse(arguments: argparse.Namespace, given, method, ends, sampling) -> None:
    """Each turn of the user, and the answer to it."""
    from adaspec_jax import data
    from adaspec_jax.measuring.talk import Talk

    template = data.chat.template_of(given.tokenizer, arguments.chat_template, arguments.template_options)
    say_notes(data.chat.notes_on(template, ends))
    talk = Talk(given, method, template, ends, system=arguments.system, **_knobs(arguments, sampling))
    for turn in arguments.prompt or filter(str.strip, sys.stdin):
        _check_text(turn)
        answer = talk.say(turn.rstrip("\n"))
        print(f"user: {turn.rstrip()}\nassistant: {answer.text}")
        _say_logprobs(answer.made, int(answer.made.lengths_B[0]) - answer.new_tokens, given.tokenizer)
        print(f"{_in_words(answer.made, answer.new_tokens)} {answer.read} tokens read before\n", flush=True)
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


def _in_words(made, new_tokens: int) -> str:
    accepted, judged, rounds = int(made.accepted_BN.sum()), int(made.judged_BN.sum()), int(made.rounds_B[0])
    alpha = f"acceptance {accepted}/{judged} = {accepted / judged:.3f}, " if judged else ""
    return f"[{new_tokens} tokens in {rounds} target calls, {alpha}{new_tokens / rounds:.2f} tokens per call]"


def _check(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported."""
    prompts = arguments.prompt or []
    if not arguments.chat:
        if len(prompts) != 1:
            raise UserError("give one --prompt; several are the turns of a conversation, with --chat")
        for option in ("system", "chat_template", "template_options"):
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option} goes with --chat")
    elif arguments.stop:
        raise UserError("--stop is for texts; a conversation's turns end where its template ends them")
    if arguments.exact is not None and (arguments.chat or arguments.temperature):
        raise UserError("--exact is for a text at temperature 0; leave --chat or --temperature out")
    if any(not prompt.strip() for prompt in prompts):
        raise UserError("--prompt is empty; give at least one character")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("generate", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    add_sources(parser)
    parser.add_argument(
        "--method",
        help="default: vanilla with a draft, KIND_chain with a head, else plain; see "
        "python -m adaspec_jax.benchmark --methods list. "
        "--method.KNOB=VALUE sets one of its knobs",
    )
    parser.add_argument("--prompt", action="append", help="a text to go on with; with --chat, what the user says")
    parser.add_argument("--stop", action="append", default=[], help="a text before which to stop; any number of them")
    parser.add_argument("--chat", action="store_true", help="prompts are turns of a conversation")
    parser.add_argument("--system", help="what the conversation begins with")
    add_template_options(parser)
    parser.add_argument("--draft_length", type=GUESSES, default=5)
    parser.add_argument("--max_new_tokens", type=TOKENS, default=128)
    add_sampling(parser)
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
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_matmul_option(parser)
    add_profile(parser)
    parser.add_argument("--mesh", help="as in tensor=4: models cut over so many devices; default: one device")
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
