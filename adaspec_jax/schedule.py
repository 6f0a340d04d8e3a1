"""python -m adaspec_jax.schedule --target DIR --draft DIR --prompts FILE --batch_sizes 1,4,16 --json OUT

How many guesses of a draft pay at each batch size, 0 where speculation loses: by what the parts of a round cost on this
machine and what is accepted of these prompts. Prints what vLLM and SGLang take. With --check every candidate decodes
the prompts, and the choice is held against the one that measured fastest.
"""

from __future__ import annotations

import argparse
import math
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
    add_task_option,
    add_types,
    check_outputs,
    numbers_of,
    parse_arguments,
    parser_of,
)
from adaspec_jax.sampling_options import add_sampling, check_fits, sampling_of


@keeping("nothing is kept, for results are written at the end: the same command begins anew")
def main() -> None:
    arguments = parse_arguments(_parser())
    batch_sizes, lengths = _check(arguments)

    from adaspec_jax import reporting
    from adaspec_jax.measuring.asked import prompts_of
    from adaspec_jax.measuring.evaluation import environment_of
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of
    from adaspec_jax.measuring.products import chosen, multiplied
    from adaspec_jax.measuring.schedule import MEASURED_HOW, schedule

    sampling, mesh = sampling_of(arguments), mesh_of(arguments.mesh, math.gcd(*batch_sizes))
    where = {"path": arguments.data, "split": arguments.split, "seed": arguments.seed}
    prompts, _ = prompts_of(arguments.prompts, arguments.task, arguments.num_prompts, **where)
    given, ends = load_given(arguments.target, [arguments.draft], dtype=arguments.dtype, takes_heads=False)
    check_fits(sampling, given.target.config.num_tokens)
    products = chosen(arguments.matmul, mesh)
    found = schedule(
        multiplied(given, products),
        prompts,
        batch_sizes=batch_sizes,
        lengths=lengths,
        sampling=sampling,
        ends=ends,
        mesh=mesh,
        check=arguments.check,
        **{name: getattr(arguments, name) for name in ("max_new_tokens", "max_prompt_length", "seed")},
    )
    notes = [*notes_on(given), *products.notes]
    settings = {**vars(arguments), "eos_id": ends.recorded, "measured": MEASURED_HOW}
    report: dict[str, Any] = {**found, "prompts": len(prompts), "settings": settings}
    report |= {"environment": environment_of(mesh), "notes": notes}
    say_notes(notes)
    if arguments.json:
        reporting.write_json(arguments.json, report)
    if arguments.svg:
        reporting.write_schedule(arguments.svg, report)
    print(reporting.schedule_table(report, columns=reporting.columns_of()))


def _check(arguments: argparse.Namespace) -> tuple[list[int], list[int]]:
    """The batch sizes and the candidates: mistakes that can be told before jax is imported."""
    if (arguments.prompts is None) == (arguments.task is None):
        raise UserError("a schedule is measured: give either --prompts FILE or --task NAME")
    check_outputs(arguments, "json", "svg")
    sizes = numbers_of("batch_sizes", arguments.batch_sizes, ROWS)
    lengths = numbers_of("draft_lengths", arguments.draft_lengths, GUESSES)
    return sorted(set(sizes)), sorted(set(lengths))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("schedule", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    parser.add_argument("--draft", required=True, help="directory or hub name of the draft model")
    parser.add_argument(
        "--batch_sizes", default="1,2,4,8,16", help="with commas between them; the last a server's most"
    )
    parser.add_argument("--draft_lengths", default="1,2,3,5,8", help="the candidates, beside 0")
    parser.add_argument(
        "--check", action="store_true", help="also decodes with every candidate, each compiled and timed"
    )
    parser.add_argument("--prompts", help='a .jsonl file of rows with "prompt"')
    add_task_option(parser, "or the held-out prompts of a task: ")
    parser.add_argument("--data", help="the task's file (default: ADASPEC_DATA, tensorflow-datasets, hub)")
    parser.add_argument("--split", default="test", help="of the task")
    parser.add_argument("--num_prompts", type=COUNT, default=64, help="at least as many as the largest batch has rows")
    parser.add_argument(
        "--max_prompt_length", type=AT_LEAST_NONE, default=0, help="longer prompts lose tokens from their middle"
    )
    parser.add_argument("--max_new_tokens", type=TOKENS, default=64, help="of an answer, at most")
    add_sampling(parser)
    parser.add_argument("--seed", type=SEED, default=0, help="of a generated task and of sampling")
    add_types(parser)
    parser.add_argument("--mesh", help="as in data=2,tensor=4; default: rows over as many devices as divide them")
    parser.add_argument("--json", help="where the report goes")
    parser.add_argument("--svg", help="where a picture of the promised speed-ups goes")
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
