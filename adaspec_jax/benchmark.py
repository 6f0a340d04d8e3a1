"""python -m adaspec_jax.benchmark --target PATH --draft PATH --methods all --prompts FILE --json OUT

One table of speculative decoding methods on the same prompts, taken in turn with plain decoding: tokens per target
call, tokens per second and speed-up, with intervals. `--methods list` prints the names; FILE.py:NAME is a method of
your own (an `adaspec_jax.methods.Method`).
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Mapping
from functools import partial

from adaspec_jax.benchmark_replay import add_replay_options, check_replay, record, replayed
from adaspec_jax.command_line import say_notes
from adaspec_jax.errors import UserError, did_you_mean, exit_with_one_line, keeping
from adaspec_jax.options import (
    AT_LEAST_NONE,
    COUNT,
    GUESSES,
    ROWS,
    SEED,
    TOKENS,
    add_conversation_options,
    add_profile,
    add_sources,
    add_task_option,
    add_types,
    check_outputs,
    number_of,
    numbers_of,
    parse_arguments,
    parser_of,
    real,
)
from adaspec_jax.sampling_options import add_sampling, check_fits, sampling_of, spelt_out


@keeping("nothing is kept, for results are written at the end: the same command begins anew")
def main() -> None:
    arguments = parse_arguments(_parser())
    if arguments.methods == "list":
        from adaspec_jax import methods, reporting

        listed = reporting.methods_list(methods.METHODS.values(), methods.SAID, columns=reporting.columns_of())
        return print(listed, methods.WHERE_TO_BEGIN, sep="\n\n")
    batch_sizes, least = _check(arguments)

    from adaspec_jax.devices.tracing import traced
    from adaspec_jax.measuring.bench import bench, entries
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of, placed
    from adaspec_jax.measuring.products import chosen as products_of
    from adaspec_jax.measuring.products import multiplied
    from adaspec_jax.measuring.scores import score_of

    sampling, chosen = sampling_of(arguments), _methods(arguments)
    mesh = mesh_of(arguments.mesh, math.gcd(*batch_sizes))
    prompts, held_back = _prompts(arguments)
    loading = {name: getattr(arguments, name) for name in ("dtype", "draft_length", "datastore", "qualifier")}
    loading["other_tokenizer"] = arguments.methods != "all" and any(method.translates for method in chosen)
    given, ends = load_given(arguments.target, arguments.draft, **loading)
    check_fits(sampling, given.target.config.num_tokens)
    if arguments.methods != "all":
        for method in chosen:
            method.check(given)
    entered = entries(chosen, given, lossless_alone=sampling.shares_noise)[0]
    _check_names(least, entered)
    products = products_of(arguments.matmul, mesh)
    given = placed(multiplied(given, products), mesh)
    if arguments.chat:
        prompts = _spoken(arguments, given, ends, mesh, max(batch_sizes), sampling)
    knobs = ("max_new_tokens", "max_prompt_length", "seed")
    asked = {"sampling": sampling} | {name: getattr(arguments, name) for name in knobs}
    score, unscored = score_of(arguments.task, run_code=arguments.run_code)
    shared = {"batch_sizes": batch_sizes, "ends": ends, "mesh": mesh}
    judging = {"until": arguments.until, "score": score, "held_back": held_back, "exact": arguments.exact}
    measure = partial(bench, given, chosen, **shared, **judging, **asked, skip=arguments.methods == "all")
    notes = [*notes_on(given), *products.notes, *unscored]
    if arguments.record:
        return record(arguments, given, prompts, shared)
    if arguments.replay:
        found, differing = replayed(arguments, given, chosen, prompts, shared, measure)
        notes += differing
    else:
        found = traced(arguments.profile)(measure)(prompts)
    _fail_under(least, _told(arguments, found, notes, entered, shared))


def _told(arguments: argparse.Namespace, found: Mapping, notes: list[str], entered: Mapping, shared: Mapping) -> dict:
    """The report, written and printed."""
    from adaspec_jax import reporting
    from adaspec_jax.measuring.bench import MEASURED_HOW
    from adaspec_jax.measuring.evaluation import environment_of

    settings = {**vars(arguments), "eos_id": shared["ends"].recorded, "measured": MEASURED_HOW}
    report = {**found, "settings": settings, "environment": environment_of(shared["mesh"]), "notes": notes}
    say_notes(notes)
    if arguments.json:
        reporting.write_json(arguments.json, report)
    if arguments.svg:
        reporting.write_speedups(arguments.svg, report)
    print(reporting.methods_table(report, columns=reporting.columns_of()))
    best = entered.get(found["verdict"]["best"])
    print(reporting.verdict_in_words(report, _command(arguments, best, found.get("exact"))))
    return report


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("benchmark", __doc__)
    parser.add_argument("--target", help="directory or hub name")
    add_sources(parser)
    parser.add_argument("--methods", default="all", help="all, list, or names with commas between them")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KNOB=VALUES",
        help="each method that has the knob, once with every value: window=3,5,7, or METHOD.KNOB=... for one alone; "
        "see --methods list",
    )
    _add_prompts(parser)
    parser.add_argument("--batch_size", default="1", help="one, or several with commas between them")
    parser.add_argument("--draft_length", type=GUESSES, default=5, help="guesses in a row")
    parser.add_argument("--max_new_tokens", type=TOKENS, default=128, help="of an answer, at most")
    parser.add_argument(
        "--until",
        type=real(0, 1e6, above=True),
        metavar="WIDTH",
        help="time all again until no speed-up's interval is wider, as in 0.1; at most 20 times",
    )
    add_sampling(parser)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="all methods verify at one width, so that text is plain decoding's to the bit; chains alone, and dearer",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of a generated task and of sampling")
    add_types(parser)
    parser.add_argument("--mesh", help="as in data=2,tensor=4; default: rows over as many devices as divide them")
    _add_results(parser)
    return parser


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    """What is decoded."""
    parser.add_argument(
        "--prompts", help='a .jsonl file of rows with "prompt", maybe "id" and "category"; or Spec-Bench\'s'
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="prompts are conversations, or lists of turns, rendered by the chat template; each turn is a request, "
        "after the target's own answers to those before it",
    )
    add_conversation_options(parser)
    add_task_option(parser, "or the held-out prompts of a task: ")
    parser.add_argument("--data", help="the task's file (default: ADASPEC_DATA, tensorflow-datasets, hub)")
    parser.add_argument("--split", default="test", help="of the task")
    parser.add_argument(
        "--run_code",
        action="store_true",
        help="score mbpp by running what the model wrote, in a process with limits of time and memory: no sandbox",
    )
    parser.add_argument("--num_prompts", type=COUNT, default=100, help="the first of them")
    parser.add_argument(
        "--max_prompt_length",
        type=AT_LEAST_NONE,
        default=0,
        help="longer prompts lose tokens from their middle; 0: those beyond the models' context do",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    """What becomes of the figures."""
    parser.add_argument("--json", help="where the report goes")
    add_replay_options(parser)
    add_profile(parser)
    parser.add_argument("--svg", help="where a picture of the speed-ups goes")
    parser.add_argument(
        "--fail_under",
        action="append",
        default=[],
        metavar="NAME=SPEEDUP",
        help="exit status 1 where the upper end of a method's speed-up interval is below",
    )


def _check(arguments: argparse.Namespace) -> tuple[list[int], dict[str, float]]:
    """The batch sizes, and the least speed-ups by name: mistakes that can be told before jax is imported."""
    if not arguments.target:
        raise UserError("--target is missing; see --help")
    check_outputs(arguments, "json", "svg", "record")
    check_replay(arguments)
    sources = sum(source is not None for source in (arguments.prompts, arguments.task))
    if sources > 1 or not (sources or arguments.replay):
        raise UserError("give either --prompts FILE or --task NAME")
    if arguments.chat and arguments.max_prompt_length:
        raise UserError("--max_prompt_length would tear a conversation apart; leave it out with --chat")
    if arguments.chat and arguments.prompts is None:
        raise UserError("--chat reads conversations from --prompts FILE")
    for option in ("chat_template", "template_options", "assistant_roles"):
        if getattr(arguments, option) and not arguments.chat:
            raise UserError(f"--{option} goes with --chat")
    if arguments.exact and (arguments.temperature or arguments.record or arguments.replay):
        raise UserError("--exact is for measuring greedy text; leave --temperature, --record and --replay out")
    sizes = numbers_of("batch_size", arguments.batch_size, ROWS)
    least = {}
    for text in arguments.fail_under:
        name, _, number = text.rpartition("=")
        if not name:
            raise UserError(f"--fail_under {text}: give NAME=SPEEDUP, as in vanilla=1.2")
        least[name] = number_of("fail_under", number, real(0, 1e9, above=True))
    return list(dict.fromkeys(sizes)), least


def _check_names(least: Mapping[str, float], entered) -> None:
    for name in least:
        if name not in entered:
            raise UserError(f'--fail_under: "{name}" is not measured{did_you_mean(name, entered)}')


def _methods(arguments: argparse.Namespace) -> list:
    from adaspec_jax import methods

    chosen = methods.find_all(arguments.methods)
    for sweep in arguments.sweep:
        chosen = methods.swept(chosen, sweep)
    return chosen


def _prompts(arguments: argparse.Namespace) -> tuple[list, list]:
    """The prompts to measure on, and those held back; none where conversations or a record have them."""
    from adaspec_jax.measuring.asked import prompts_of

    if arguments.chat or (arguments.prompts is None and arguments.task is None):
        return [], []
    where = {"path": arguments.data, "split": arguments.split, "seed": arguments.seed}
    return prompts_of(arguments.prompts, arguments.task, arguments.num_prompts, **where)


def _spoken(arguments: argparse.Namespace, given, ends, mesh, batch_size: int, sampling) -> list:
    """All turns of the conversations, each after the target's own answers to those before it."""
    from adaspec_jax import data
    from adaspec_jax.measuring.asked import conversations_of
    from adaspec_jax.measuring.own_turns import spoken_prompts

    talks = conversations_of(arguments.prompts, arguments.num_prompts, assistants=arguments.assistant_roles)
    template = data.chat.template_of(given.tokenizer, arguments.chat_template, arguments.template_options)
    say_notes(data.chat.notes_on(template, ends))
    context = min(model.config.max_positions for model in (given.target, *given.drafts.values()))
    longest = context - arguments.max_new_tokens
    knobs = {"max_new_tokens": arguments.max_new_tokens, "sampling": sampling, "ends": ends}
    sizes = {"batch_size": batch_size, "longest": longest, "mesh": mesh, "seed": arguments.seed}
    return spoken_prompts(given.target, talks, data.chat.Chat(template), **sizes, **knobs)


def _command(arguments: argparse.Namespace, best: tuple | None, exact: int | None = None) -> str:
    """What decodes with this method as it was measured; a method of the user's own goes by where it was found."""
    from adaspec_jax.methods import find, spelt

    if best is None:
        return ""  # plain decoding
    method, theirs = best
    drafts = theirs.foreign if method.translates else {**theirs.drafts, **theirs.heads}
    asked = [name for name in arguments.methods.split(",") if ":" in name and find(name).name == method.name]
    parts = ["python", "-m", "adaspec_jax.generate", "--target", arguments.target]
    for draft in drafts:
        parts += ["--qualifier" if draft == arguments.qualifier and len(drafts) > 1 else "--draft", draft]
    parts += ["--chat"] if arguments.chat else []
    parts += ["--method", asked[0] if asked else method.name]
    parts += [f"--method.{name}={spelt(value)}" for name, value in method.chosen.items()]
    defaults = {"draft_length": None, "dtype": "float32", "matmul": "float32"}
    of_a_row = ",".join(axis for axis in (arguments.mesh or "").split(",") if axis.startswith("tensor="))
    parts += ["--mesh", of_a_row] if of_a_row else []  # generate has one row, and no more devices for others
    for option in ("datastore", *defaults, "chat_template", "template_options"):
        if (value := getattr(arguments, option)) != defaults.get(option):
            parts += [f"--{option}", str(value)]
    parts += ["--exact", str(exact)] if exact is not None else []
    parts += spelt_out(arguments)
    return shlex.join(parts)


def _fail_under(least: Mapping[str, float], report: Mapping) -> None:
    """Exit status 1 where a method is surely slower than it was to be."""
    for name in least:
        if why := report["methods"][name].get("skipped"):
            raise UserError(f"--fail_under: {name} was not measured: it {why}")
    slow = {name: report["methods"][name]["speedup_ci95"][1] for name in least}
    for name in (name for name, upper in slow.items() if upper < least[name]):
        print(f"{name}: at most {slow[name]:.3f}x plain decoding, below --fail_under {least[name]:g}", file=sys.stderr)
    if any(upper < least[name] for name, upper in slow.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    exit_with_one_line(main)
