"""python -m adaspec_jax.search_layers --target DIR --task gsm8k --out set.json

Which sublayers the target had best leave out while it drafts for itself: Draft & Verify's Bayesian search, by tokens
per second on this machine. Writes what `--method draft_and_verify --method.layers=set.json` takes. Every trial is kept
beside it (set.trials.jsonl): the same command goes on where it was stopped, and with more --trials from its end.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from adaspec_jax.command_line import say_notes
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import (
    AT_LEAST_NONE,
    COUNT,
    GUESSES,
    ROWS,
    SEED,
    TOKENS,
    add_dtype_option,
    add_task_option,
    check_outputs,
    parse_arguments,
    parser_of,
    real,
    whole,
)

FINALISTS, AGAIN = 4, 5  # so many of the sets are measured again with the default one, so many times in turn

_RECORDED = ("num_prompts", "batch_size", "max_new_tokens", "length", "threshold", "dtype")


@keeping("the trials that were made are kept beside --out: the same command goes on from there")
def main() -> None:
    arguments = parse_arguments(_parser())
    _check(arguments)

    from adaspec_jax import reporting
    from adaspec_jax.files import write_json
    from adaspec_jax.measuring.evaluation import environment_of
    from adaspec_jax.measuring.layer_search import Journal, Speed, search
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of, placed
    from adaspec_jax.methods import METHODS
    from adaspec_jax.methods.own_layers import as_layer_set

    given, ends = load_given(arguments.target, [], dtype=arguments.dtype)
    method = METHODS["draft_and_verify"].set(length=arguments.length, threshold=arguments.threshold)
    method.check(given)
    mesh = mesh_of("data=1", 1)
    given = placed(given, mesh)
    drafter, layers = method.make(given), given.target.config.num_layers
    batches, cut = _batches(arguments, given, ends)
    speed = Speed(drafter, batches, max_new_tokens=arguments.max_new_tokens, eos_id=ends)
    journal = Journal(_journal(arguments.out), _about(arguments, speed, layers))
    say_notes([*notes_on(given), *([f"{cut} prompts lost their middle"] if cut else [])])
    tried = min(len(journal.tried), arguments.trials)
    with reporting.track(arguments.trials, description="search", unit="trial", initial=tried) as progress:
        how = {"trials": arguments.trials, "first": drafter.skipped, "seed": arguments.seed}
        ranked = search(speed, layers, journal, advance=progress.advance, **how)
    finalists = list(dict.fromkeys([drafter.skipped, *ranked[:FINALISTS]]))
    with reporting.working("measuring the best sets again"):
        rates = dict(zip(finalists, speed.median(*finalists, times=AGAIN), strict=True))
    best, default = max(rates, key=rates.get), rates[drafter.skipped]
    about = {"tokens_per_second": rates[best], "default_tokens_per_second": default, "trials": len(journal.tried)}
    about |= {"settings": vars(arguments), "environment": environment_of(mesh)}
    write_json(arguments.out, as_layer_set(best, layers) | {"found": about})
    print(_in_words(arguments.out, best, layers, about))


def _in_words(out: str, best: tuple[int, ...], layers: int, about: dict[str, Any]) -> str:
    attentions, mlps = (sum(n % 2 == part for n in best) for part in (0, 1))
    found, default = about["tokens_per_second"], about["default_tokens_per_second"]
    said = f"the set leaves out {attentions} attentions and {mlps} MLPs of {layers} layers: {found:.1f} tokens/s"
    than = f"{found / default:.2f}x the default set's {default:.1f}" if found > default else "and is the default one"
    return f"{out}: after {about['trials']} trials {said}, {than}; {AGAIN} measurements in turn with the best of them"


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.prompts is None) == (arguments.task is None):
        raise UserError("give either --prompts FILE or --task NAME")
    check_outputs(arguments, "out")
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the search needs optuna: pip install optuna")


def _journal(out: str) -> Path:
    return Path(out).with_suffix(".trials.jsonl")


def _batches(arguments: argparse.Namespace, given, ends) -> tuple[list, int]:
    """The prompts as they are decoded, and how many lost their middle."""
    from adaspec_jax import data
    from adaspec_jax.data.prompts import Prompt, read_prompts
    from adaspec_jax.measuring.evaluation import prompt_batches
    from adaspec_jax.measuring.tallies import encoded_prompts, room_for_prompts

    if arguments.prompts:
        prompts = read_prompts(arguments.prompts, arguments.num_prompts)
    else:
        where = {"path": arguments.data, "num": arguments.num_prompts, "seed": arguments.seed}
        examples = data.load_examples(arguments.task, arguments.split, **where)
        prompts = [Prompt(number, each.prompt) for number, each in enumerate(examples, 1)]
    room = room_for_prompts(given, arguments.max_new_tokens, arguments.max_prompt_length)
    encoded, cut = encoded_prompts(prompts, given, ends, room)
    longest = max(row.prompt_length for row in encoded)
    return prompt_batches(encoded, arguments.batch_size, longest=longest, pad_id=ends.closing), cut


def _about(arguments: argparse.Namespace, speed, layers: int) -> dict[str, Any]:
    """What makes trials those of one search: the machine, and the texts, which tell the target and the prompts."""
    import jax
    import numpy as np

    from adaspec_jax import reporting

    texts = b"".join(np.asarray(made.tokens_BS, np.int32).tobytes() for made in speed.made)
    settings = {name: getattr(arguments, name) for name in _RECORDED}
    there = reporting.environment(jax.devices()[0].device_kind)
    settings["machine"] = [there[name] for name in ("platform", "cpu_count", "device")]
    return settings | {"num_layers": layers, "texts_sha256": hashlib.sha256(texts).hexdigest()}


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("search_layers", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    parser.add_argument("--out", required=True, help="where the set goes, a .json file")
    parser.add_argument(
        "--trials", type=whole(1, 10**7), default=200, help="sets to try in all; the paper's code goes up to 1000"
    )
    parser.add_argument("--prompts", help='a .jsonl file of rows with "prompt"')
    add_task_option(parser, "or the prompts of a task: ")
    parser.add_argument("--data", help="the task's file")
    parser.add_argument("--split", default="train", help="of the task")
    parser.add_argument("--num_prompts", type=COUNT, default=8, help="the first of them; each trial decodes all")
    parser.add_argument("--batch_size", type=ROWS, default=1, help="rows that are decoded together")
    parser.add_argument("--max_new_tokens", type=TOKENS, default=64, help="of an answer, at most")
    parser.add_argument(
        "--max_prompt_length", type=AT_LEAST_NONE, default=0, help="longer prompts lose tokens from their middle"
    )
    parser.add_argument("--length", type=GUESSES, default=8, help="guesses in a row, as draft_and_verify takes it")
    parser.add_argument(
        "--threshold",
        type=real(0, 1, above=True, below=True),
        default=0.8,
        help="of a chain's end, as draft_and_verify takes it",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of a generated task and of sampling")
    add_dtype_option(parser)
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
