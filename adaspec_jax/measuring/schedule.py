"""How many guesses pay at each batch size, by what rounds cost there and what is accepted: a schedule for servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import ChainDrafter, NoDraft, Sampling
from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.costs import rounds_priced
from adaspec_jax.measuring.figures import Tally, figures
from adaspec_jax.measuring.placing import placed
from adaspec_jax.measuring.tallies import Size, Terms, encoded_prompts, room_for_prompts
from adaspec_jax.measuring.turns import PLAIN, Contender
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.serving.schedules import ranges, sglang_options, vllm_settings

TIMES = 3  # that the parts of a round are measured in turn
ENOUGH = 0.03  # a choice that measures no more than this share below the fastest is as good

MEASURED_HOW = {
    "costs": "seconds of a round's first draft step, of each further one, and of verifications, each measured apart",
    "tokens_per_round": "1 + accepted guesses, of which no more count than there are guesses, over the rounds of the "
    "longest candidate on the prompts at this batch size",
    "tokens_per_second": "rows x tokens_per_round / what the parts of a round cost together; no row waits for another",
    "measured": "of decoding the prompts, candidates in turn; rows that have ended wait for the last of their batch",
    "behind": "by which share the choice measured slower than the candidate that measured fastest",
}


def schedule(
    given: Given,
    prompts: Sequence[Prompt],
    *,
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    ends: data.Ends,
    mesh: Mesh,
    seed: int = 0,
    max_prompt_length: int = 0,
    check: bool = False,
) -> dict[str, Any]:
    """{"batch_sizes": {size: S}, "ranges", "vllm", "sglang", "prompts_cut"}: how many guesses of the draft pay at each.

    `lengths` are the candidates, beside 0. S has "guesses", the candidate of most expected tokens per second, "costs",
    "alpha", and of each of the "candidates" what is expected; with `check` also what decoding the prompts with it
    measured, and "check", how far behind the choice is. UserError for fewer prompts than the largest batch has rows,
    and as `bench`.
    """
    METHODS["vanilla"].check(given)
    if len(prompts) < max(batch_sizes):
        raise UserError(f"{len(prompts)} prompts do not fill a batch of {max(batch_sizes)}: give more of them")
    there, longest = placed(given, mesh), max(lengths)
    decoding = {"max_new_tokens": max_new_tokens, "sampling": sampling}
    room = room_for_prompts(given, max_new_tokens, max_prompt_length)
    width = max(row.prompt_length for row in encoded_prompts(prompts, given, ends, room)[0])
    terms = Terms(there, mesh, ends, decoding | {"eos_id": ends}, room, seed, None, None)
    contenders = {PLAIN: Contender(NoDraft())}
    contenders |= {str(n): Contender(ChainDrafter(there.draft, n)) for n in (lengths if check else [longest])}
    with short_of_memory("decoding", "lower --batch_sizes or --max_new_tokens"), sharding.over(mesh):
        sizes, cut = terms.sizes(contenders, prompts, batch_sizes, "schedule")
    shapes_BT = [(size, width) for size in batch_sizes]
    chain = ChainDrafter(there.draft, longest)
    costs = rounds_priced(there, chain, longest, shapes_BT=shapes_BT, mesh=mesh, times=TIMES, **decoding)
    found = {size: _of_size(size, made, costs[size], lengths, sampling) for size, made in sizes.items()}
    guesses = {size: each["guesses"] for size, each in found.items()}
    return {
        "batch_sizes": {str(size): each for size, each in found.items()},
        "ranges": ranges(guesses),
        "vllm": vllm_settings(next(iter(given.drafts)), guesses),
        "sglang": sglang_options(guesses),
        "prompts_cut": cut,
    }


def _of_size(size: int, made: Size, costs: RoundCosts, lengths: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    longest, plain = made.tallies[str(max(lengths))], made.tallies[PLAIN]
    candidates = expected(size, longest.histogram, costs, lengths)
    chosen = max(candidates, key=lambda n: candidates[n]["tokens_per_second"])  # of equals the fewest
    for n, each in candidates.items():
        tally = made.tallies.get(str(n) if n else PLAIN)
        each["measured"] = None if tally is None else _measured(tally, plain, sampling)
    checked = all(each["measured"] for each in candidates.values())
    return {
        "guesses": chosen,
        "alpha": float(longest.accepted.sum() / max(longest.judged.sum(), 1)),
        "costs": {
            "first_draft_step": costs.first,
            "draft_step": costs.further,
            "verification": {str(n): seconds for n, seconds in costs.verification.items()},
        },
        "candidates": {str(n): each for n, each in candidates.items()},
        "check": held_against(candidates, chosen) if checked else None,
    }


def expected(rows: int, histogram: np.ndarray, costs: RoundCosts, lengths: Sequence[int]) -> dict[int, dict[str, Any]]:
    """{guesses: tokens_per_round, seconds_per_round, tokens_per_second, speedup}, 0 guesses among them.

    `histogram`: rounds by accepted guesses, of a chain that is at least as long as any of `lengths`.
    """
    found = {}
    for n in sorted({0, *lengths}):
        tokens = 1 + float(histogram @ np.minimum(np.arange(len(histogram)), n)) / float(histogram.sum())
        seconds = costs.of(n)
        speedup = tokens * costs.of(0) / seconds
        found[n] = {"tokens_per_round": tokens, "seconds_per_round": seconds}
        found[n] |= {"tokens_per_second": rows * tokens / seconds, "speedup": speedup}
    return found


def _measured(tally: Tally, plain: Tally, sampling: Sampling) -> dict[str, Any]:
    said = figures(tally, plain, settled=sampling.settled)
    of_batches = np.split(tally.rounds, np.cumsum(tally.rows)[:-1])
    rounds = sum(int(rounds_P.max()) for rounds_P in of_batches)  # a batch goes on until its last row has ended
    return {
        "tokens_per_round": said["tokens_per_target_call"],
        "seconds_per_round": float(tally.decoding_seconds.sum()) / rounds,
        **{name: said[name] for name in ("tokens_per_second", "speedup", "speedup_ci95")},
    }


def held_against(candidates: Mapping[int, Mapping[str, Any]], chosen: int) -> dict[str, Any]:
    """{"best", "behind", "enough", "reason"}: the choice beside the candidate that measured fastest.

    The reason says where expectation and measurement part, for a choice that is not good enough.
    """
    best = max(candidates, key=lambda n: candidates[n]["measured"]["tokens_per_second"])
    rates = [candidates[n]["measured"]["tokens_per_second"] for n in (chosen, best)]
    behind = 1 - rates[0] / rates[1]
    enough = behind <= ENOUGH
    reason = "" if enough else f"{_parting(candidates, best)}; {_parting(candidates, chosen)}"
    intervals = [candidates[n]["measured"]["speedup_ci95"] for n in (chosen, best)]
    if not enough and intervals[0][1] >= intervals[1][0]:
        reason += "; their intervals overlap"
    return {"best": best, "behind": behind, "enough": enough, "reason": reason}


def _parting(candidates: Mapping[int, Mapping[str, Any]], n: int) -> str:
    """By how much a candidate's rounds measured dearer, and kept more, than was expected."""
    ours = candidates[n]
    dearer, more = (ours["measured"][name] / ours[name] for name in ("seconds_per_round", "tokens_per_round"))
    return f"{n} guesses: a round {dearer:.2f} times its parts, tokens {more:.2f} times the expected"
