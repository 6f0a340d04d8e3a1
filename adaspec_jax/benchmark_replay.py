"""The --record and --replay of python -m adaspec_jax.benchmark."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from adaspec_jax.errors import UserError
from adaspec_jax.options import COUNT
from adaspec_jax.sampling_options import spelt_out


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """A text that is decoded once, and what methods would make of it."""
    parser.add_argument("--record", metavar="FILE", help="decodes plainly, and keeps the text for --replay")
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="counts what methods make of a recorded text, without the target's passes; without prompts, of all of it",
    )
    parser.add_argument("--time", type=COUNT, metavar="N", help="then measures the best N of the replay")


def check_replay(arguments: argparse.Namespace) -> None:
    """What goes with a record: greedy decoding, no times but those that are asked for, and nothing written over."""
    if arguments.record and os.path.exists(arguments.record):
        raise UserError(f"--record {arguments.record} is there already; choose another file")
    if arguments.time is not None and not arguments.replay:
        raise UserError("--time N measures the best N of a --replay FILE: give that")
    if not (arguments.record or arguments.replay):
        return
    if arguments.record and arguments.replay:
        raise UserError("--record writes a record and --replay reads one; give one of them")
    option = "record" if arguments.record else "replay"
    if spelt_out(arguments):
        raise UserError(f"--{option} is for the target's own greedy text; leave {spelt_out(arguments)[0]} out")
    without = {"record": ("sweep", "json", "svg", "until", "fail_under"), "replay": ("chat", "fail_under")}[option]
    if arguments.replay and not arguments.time:
        without += ("svg", "until")
    for name in without:
        if getattr(arguments, name):
            why = {"record": "measures nothing", "replay": "has the record's turns, and takes no times"}[option]
            raise UserError(f"--{option} {why}; leave --{name} out")
    if arguments.record and arguments.methods != "all":
        raise UserError("--record decodes plainly, for any method to be replayed; leave --methods out")


def record(arguments: argparse.Namespace, given, prompts: list, shared: Mapping) -> None:
    """Plain decoding once, and the file from which methods are replayed."""
    from adaspec_jax.measuring.records import recorded, write_record

    knobs = {"max_new_tokens": arguments.max_new_tokens, "max_prompt_length": arguments.max_prompt_length}
    where = {"batch_size": shared["batch_sizes"][0], "ends": shared["ends"], "mesh": shared["mesh"]}
    made = recorded(given, prompts, _terms(arguments, given, shared["ends"]), **knobs, **where)
    write_record(arguments.record, made)
    tokens = sum(map(len, made.answers))
    cut = f", {made.cut} of which lost their middle" if made.cut else ""
    print(f"{arguments.record}: {tokens} tokens after {len(made.prompts)} prompts{cut}")


def replayed(arguments: argparse.Namespace, given, chosen, prompts: list, shared: Mapping, measure) -> tuple:
    """The report of a replay, the best of it then measured where asked; and notes."""
    from adaspec_jax.measuring.records import of_prompts, read_record
    from adaspec_jax.measuring.replay import replay, timed
    from adaspec_jax.measuring.tallies import encoded_prompts, room_for_prompts

    kept = read_record(arguments.replay, _terms(arguments, given, shared["ends"]))
    if prompts:
        room = room_for_prompts(given, arguments.max_new_tokens, arguments.max_prompt_length)
        encoded, _ = encoded_prompts(prompts, given, shared["ends"], room)
        kept = of_prompts(kept, arguments.replay, prompts, encoded)
    found = replay(
        given, chosen, kept, max_new_tokens=arguments.max_new_tokens, skip=arguments.methods == "all", **shared
    )
    if not arguments.time:
        return found, []
    best = [label for label in found["verdict"]["ranked"] if label in found["methods"]][: arguments.time]
    return timed(found, measure(kept.prompts, only=best))


def _terms(arguments: argparse.Namespace, given, ends) -> dict:
    from adaspec_jax.measuring.records import terms_of

    how = {name: getattr(arguments, name) for name in ("max_new_tokens", "dtype", "matmul")}
    return terms_of(arguments.target, given, ends, **how)
