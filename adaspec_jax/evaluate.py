"""python -m adaspec_jax.evaluate --target PATH --draft PATH --task NAME --json OUT

Acceptance, block efficiency and speed of any target and draft (Hugging Face directories or hub names) on a task's
held-out prompts, with intervals: the same measurement and report fields as a training run's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adaspec_jax.command_line import parse_arguments
from adaspec_jax.errors import UserError, exit_with_one_line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m adaspec_jax.evaluate", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--target", required=True, help="directory or hub name")
    parser.add_argument("--draft", required=True, help="directory or hub name")
    parser.add_argument("--task", help="gsm8k, alpaca, mbpp, cnn_dailymail, xsum or word_problems; or give two columns")
    parser.add_argument("--data", help="a .jsonl or .jsonl.gz file (default: ADASPEC_DATA, tensorflow-datasets, hub)")
    parser.add_argument("--prompt_column", help="with --answer_column: any file, columns taken as they are")
    parser.add_argument("--answer_column")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", help='a slice of the split, as in "0:800"')
    parser.add_argument("--seed", type=int, default=0, help="of a generated task and of sampling")
    parser.add_argument("--num_prompts", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--draft_length", type=int, default=5, help="guesses per round; 0 takes the best by measured costs"
    )
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--lenience", type=float, default=1.0, help="below 1: lossy acceptance, by p / lenience")
    parser.add_argument(
        "--lenience_form", choices=("linear", "square", "exponential"), default="linear", help="see decoding.Lenient"
    )
    parser.add_argument("--max_length", type=int, default=512, help="longer prompts are left out")
    parser.add_argument(
        "--max_prompt_length", type=int, default=0, help="above 0: longer prompts lose tokens from their middle"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", required=True, help="where the report goes")
    arguments = parse_arguments(parser, positive=("num_prompts", "batch_size", "max_new_tokens"))
    if arguments.draft_length < 0:
        raise UserError(f"--draft_length is {arguments.draft_length}; give 0 to have it chosen, or a number of guesses")
    if not Path(arguments.json).absolute().parent.is_dir():
        raise UserError(f"--json {arguments.json}: there is no such directory")
    if arguments.task is None and arguments.prompt_column is None:
        raise UserError("--task is missing: name one, or give --data with --prompt_column and --answer_column")
    if Path(arguments.json).is_dir():
        raise UserError(f"--json {arguments.json} is a directory; name a file in it")
    if not arguments.temperature >= 0:
        raise UserError(f"--temperature is {arguments.temperature}; it must be 0 (greedy) or positive")
    if arguments.lenience != 1 and not arguments.temperature:
        raise UserError("--lenience changes nothing in greedy decoding; give a --temperature above 0")
    if arguments.max_prompt_length >= arguments.max_length:
        raise UserError(f"--max_prompt_length {arguments.max_prompt_length} must be below --max_length")
    report = _evaluate(arguments)

    from adaspec_jax import reporting

    reporting.write_json(arguments.json, report)
    reporting.print_table(report)


def _evaluate(arguments: argparse.Namespace) -> dict:
    import jax

    from adaspec_jax import data, reporting
    from adaspec_jax.decoding import Lenient, rejection_sample
    from adaspec_jax.devices.ahead_of_time import short_of_memory
    from adaspec_jax.measuring.measure import MEASURED_HOW, measure, report_fields
    from adaspec_jax.measuring.pair import load_pair

    try:
        strict = arguments.lenience == 1
        accept = rejection_sample if strict else Lenient(arguments.lenience, arguments.lenience_form)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    examples = data.load_examples(
        arguments.task or "columns",
        arguments.split,
        path=arguments.data,
        prompt_column=arguments.prompt_column,
        answer_column=arguments.answer_column,
        rows=arguments.rows,
        num=arguments.num_prompts,
        seed=arguments.seed,
    )
    target, draft, tokenizer, eos_id = load_pair(arguments.target, arguments.draft, dtype=arguments.dtype)
    lengths = {"max_length": arguments.max_length, "max_prompt_length": arguments.max_prompt_length}
    encoded, counts = data.encode(examples, tokenizer, eos_id=eos_id, **lengths)
    asked = max(row.prompt_length for row in encoded) + arguments.max_new_tokens
    for model, name in ((target, "the target"), (draft, "the draft")):
        model.check_context(asked, name, "lower --max_new_tokens or --max_prompt_length")
    buckets = [length for length in (64, 128, 256, 512, 1024, 2048) if length < arguments.max_length]
    batches = data.prompt_batches(
        encoded, arguments.batch_size, buckets=[*buckets, arguments.max_length], pad_id=eos_id
    )
    tracked = reporting.track(len(encoded), description="evaluation", unit="prompt")
    with short_of_memory("decoding", "lower --batch_size or --max_new_tokens"), tracked as progress:
        measured, plain = measure(
            target,
            {"draft": draft},
            list(batches),
            draft_length=arguments.draft_length,
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            eos_id=eos_id,
            seed=arguments.seed,
            accept=accept,
            advance=progress.advance,
        )
    return {
        "task": examples.description["task"],
        "settings": {**vars(arguments), "eos_id": eos_id, "measured": MEASURED_HOW},
        "environment": reporting.environment(jax.devices()[0].device_kind) | {"devices": jax.device_count()},
        "data": {"evaluation": examples.description | counts, "tokenizer_sha256": data.fingerprint(tokenizer)},
        "models": {"target": target.num_params, "draft": draft.num_params},
        **report_fields(measured, plain, resamples=10_000),
    }


if __name__ == "__main__":
    exit_with_one_line(main)
