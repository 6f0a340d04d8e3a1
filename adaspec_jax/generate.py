"""python -m adaspec_jax.generate --target PATH [--draft PATH] --prompt TEXT

Continues a text with the target, speeded up by a draft if one is given, and says how many guesses were accepted.
"""

from __future__ import annotations

import argparse

from adaspec_jax.command_line import parse_arguments, say_notes
from adaspec_jax.errors import UserError, exit_with_one_line


def main() -> None:
    arguments = parse_arguments(_parser(), positive=("draft_length", "max_new_tokens"))

    import jax
    import numpy as np

    from adaspec_jax import data, methods
    from adaspec_jax.decoding import Context, Sampling, generate
    from adaspec_jax.devices import sharding
    from adaspec_jax.measuring.evaluation import check_contexts
    from adaspec_jax.measuring.pair import load_given, notes_on
    from adaspec_jax.measuring.placing import mesh_of, placed

    try:
        sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if not arguments.prompt:
        raise UserError("--prompt is empty; give at least one character")
    drafts = [arguments.draft] if arguments.draft else []
    method = methods.find(arguments.method or ("vanilla" if drafts else "plain"))
    mesh = mesh_of(arguments.mesh, 1)
    given, ends = load_given(arguments.target, drafts, dtype=arguments.dtype, draft_length=arguments.draft_length)
    method.check(given)
    tokenizer = given.tokenizer
    tokens = data.prompt_ids(arguments.prompt, tokenizer)
    check_contexts(given, len(tokens) + arguments.max_new_tokens, "lower --max_new_tokens")
    given = placed(given, mesh)
    prompt = Context(np.asarray([tokens]), np.asarray([len(tokens)]))
    knobs = {
        "max_new_tokens": arguments.max_new_tokens,
        "sampling": sampling,
        "eos_id": ends,
        "accept": method.accept,
    }
    with sharding.over(mesh):
        made = generate(given.target, method.make(given), prompt, jax.random.key(arguments.seed), **knobs)
    ours = jax.device_get(made)
    new = ours.tokens_BS[0, len(tokens) : ours.lengths_B[0]]
    say_notes(notes_on(given))
    print(arguments.prompt + data.continuation(tokens, new.tolist(), tokenizer, special=False))
    accepted, judged, rounds = int(ours.accepted_BN.sum()), int(ours.judged_BN.sum()), int(ours.rounds_B[0])
    alpha = f"acceptance {accepted}/{judged} = {accepted / judged:.3f}, " if judged else ""
    print(f"[{len(new)} tokens in {rounds} target calls, {alpha}{len(new) / rounds:.2f} tokens per call]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adaspec_jax.generate", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--target", required=True, help="directory or hub name")
    parser.add_argument("--draft", help="directory or hub name; without one the target decodes plainly")
    parser.add_argument(
        "--method", help="default: vanilla with a draft, else plain; see python -m adaspec_jax.benchmark --methods list"
    )
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--draft_length", type=int, default=5)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--mesh", help="as in tensor=4: models cut over so many devices; default: one device")
    return parser


if __name__ == "__main__":
    exit_with_one_line(main)
