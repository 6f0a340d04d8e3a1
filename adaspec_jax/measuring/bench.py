"""One table of methods: every method and plain decoding on the same prompts, taken in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Sampling, remembers
from adaspec_jax.decoding.exact import has_no_exact_text
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.costs import rounds_priced
from adaspec_jax.measuring.figures import Tally, counted, figures, rate, request_rows, speedup_interval
from adaspec_jax.measuring.placing import placed
from adaspec_jax.measuring.scores import Score
from adaspec_jax.measuring.tallies import Size, Terms, encoded_prompts, room_for_prompts
from adaspec_jax.measuring.turns import PLAIN, Contender
from adaspec_jax.measuring.verdict import best_of, faster_yet
from adaspec_jax.methods import A_DRAFT, METHODS, PUBLISHED, Given, Method

_WARM = "{}, warm"  # what a contender goes by that learns from request to request

MEASURED_HOW = {
    "tokens_per_target_call": "committed tokens / target calls, pooled over rounds, bonus token included, prefill not",
    "ci95": "of tokens_per_target_call, bootstrap over prompts",
    "mean_over_requests": "the mean of each request's own tokens per target call",
    "accepted_at": "share accepted at each depth, of the rounds that judged a guess there",
    "tokens_per_second": "without prefill, which is timed apart, and without compilation",
    "speedup": "tokens per second over plain decoding's in the same run, taken in turn",
    "speedup_ci95": "bootstrap over the batches, both ways' times of a batch kept together; one batch tells none",
    "compile_seconds": "tracing and compiling the decoding program for all shapes of prompts",
    "peak_bytes": "of a device, by the compiler's plan: arguments, temporaries and outputs of the decoding program",
    "identical_to_plain": "requests with plain decoding's text, token for token; null where noise is not shared",
    "exact": "guesses that every call but those of plain has room for; identical_to_plain is then to plain[exact]",
    "seconds": "of the batch a request was in, prefill included",
    "repetitions": "how often all prompts were decoded; counts are of the first time, times of all together",
    "score": "of the answers by what the task asks for: same last number (gsm8k, word_problems) or ROUGE-L (summaries)",
    "published": "what others measured with the system, on other models, texts and machines: see each entry",
    "verdict": "the fastest of the lossless, in how many resamples of the batches it is, and its speed-up on prompts "
    "held back; lossy: the fastest of all, where that is a lossy one",
    "warm": "where a method can learn across requests: the figures when each batch is decoded with what those before "
    "it taught, in the order of the prompts, forgotten before a repetition; all others begin anew with every request",
    "replayed": "null times: counts on a recorded text; in the order of tokens per target call, which is not speed's",
    "vllm": "vLLM's names and definitions; guesses past the end of a text are not counted as drafted",
}


def bench(
    given: Given,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    *,
    batch_sizes: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    ends: data.Ends,
    mesh: Mesh,
    seed: int = 0,
    max_prompt_length: int = 0,
    until: float | None = None,
    score: Score | None = None,
    held_back: Sequence[Prompt] = (),
    only: Sequence[str] | None = None,
    exact: bool = False,
    skip: bool = False,
) -> dict[str, Any]:
    """{"methods": {name: M or {"skipped": why}}, "plain": M, "verdict", "prompts_cut"}: M as `MEASURED_HOW` has it.

    M is for the first batch size, and also has the figures for each of `batch_sizes`, per category and per request. A
    prompt beyond the models' context, or `max_prompt_length`, loses its middle. `until`: all is timed again until no
    speed-up's interval is wider, at most `MOST_REPETITIONS` times. `held_back`: prompts on which the fastest method
    alone is measured again. `only`: the labels of those that are measured. `exact`: all verify at as many nodes as the
    widest needs, plain decoding once more among them; methods without exact text are refused, or skipped. UserError
    where no prompt fits beside so many new tokens. The mesh's rows divide every batch size.
    """
    if until is not None and len(prompts) <= max(batch_sizes):
        raise UserError("--until is for an interval, and one batch has none: lower --batch_size or take more prompts")
    room = room_for_prompts(given, max_new_tokens, max_prompt_length)
    longest = max(row.prompt_length for row in encoded_prompts(prompts, given, ends, room)[0])
    how = {"max_new_tokens": max_new_tokens, "sampling": sampling}
    shapes_BT = tuple((size, longest) for size in batch_sizes)
    price = partial(rounds_priced, shapes_BT=shapes_BT, mesh=mesh, **how)
    there = dataclasses.replace(placed(given, mesh), costs=price)
    entered, skipped = entries(methods, there, lossless_alone=sampling.shares_noise)
    if only is not None:
        entered, skipped = {label: entered[label] for label in only}, {}
    contenders, right = {PLAIN: Contender(METHODS[PLAIN].make(given))}, PLAIN
    contenders |= {label: Contender(method.make(theirs), method.accept) for label, (method, theirs) in entered.items()}
    if exact:
        contenders, right = _exact(contenders, skipped, skip=skip)
    learning = {label: each._replace(learns=True) for label, each in contenders.items() if remembers(each.drafter)}
    warm = {} if exact else {_WARM.format(label): each for label, each in learning.items()}
    terms = Terms(there, mesh, ends, how | {"eos_id": ends}, room, seed, until, score, right)
    with short_of_memory("decoding", "lower --batch_size or --max_new_tokens"), sharding.over(mesh):
        sizes, cut = terms.sizes(contenders | warm, prompts, batch_sizes, "benchmark")
        tallies = sizes[batch_sizes[0]].tallies
        lossless, lossy = _parted(tallies, entered)
        best, again = best_of(lossless, PLAIN), None
        faster = faster_yet(best, lossy, lossless, PLAIN)
        if held_back and best.label != PLAIN:
            pair = {label: contenders[label] for label in (PLAIN, right, best.label)}
            again = terms.sizes(pair, held_back, batch_sizes[:1], "the fastest again")[0][batch_sizes[0]].tallies
    return {
        **table(sizes, entered, skipped, prompts, settled=sampling.settled),
        "verdict": best.record | _held_back(best.label, again) | {"lossy": faster and faster.record},
        "prompts_cut": cut,
        **({"exact": contenders[right].exact} if exact else {}),
    }


def _parted(
    tallies: Mapping[str, Tally], entered: Mapping[str, tuple[Method, Given]]
) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """What lossless methods made, plain decoding first, and what lossy ones did."""
    of_methods = {label: tallies[label] for label in entered if label in tallies}
    lossy = {label: tally for label, tally in of_methods.items() if not entered[label][0].lossless}
    return {PLAIN: tallies[PLAIN]} | {label: of_methods[label] for label in of_methods if label not in lossy}, lossy


def _exact(
    contenders: Mapping[str, Contender], skipped: dict[str, str], *, skip: bool
) -> tuple[dict[str, Contender], str]:
    """Plain decoding as it is and exact, and all others exact, at one width; and the label of exact plain decoding."""
    found = {}
    for label, each in contenders.items():
        lossless = getattr(each.accept, "lossless", True)
        why = has_no_exact_text(each.drafter) if lossless else "is lossy, and exact text is plain decoding's"
        if why and not skip:
            raise UserError(f"the method {label} with --exact: {why}")
        if why:
            skipped[label] = why
        else:
            found[label] = each
    nodes = max(each.drafter.num_nodes for each in found.values())
    right = f"{PLAIN}[exact={nodes}]"
    exact = {label: each._replace(exact=nodes) for label, each in found.items() if label != PLAIN}
    return {PLAIN: found[PLAIN], right: found[PLAIN]._replace(exact=nodes), **exact}, right


def table(
    sizes: Mapping[int, Size],
    entered: Mapping[str, tuple[Method, Given]],
    skipped: Mapping[str, str],
    prompts: Sequence[Prompt],
    *,
    settled: bool,
) -> dict[str, Any]:
    """The "methods" and "plain" of a report, from what all contenders made of the prompts at each batch size."""
    name, first = next(iter(sizes.items()))
    found = {}
    for label in (each for each in first.tallies if not each.endswith(_WARM.format(""))):
        of_sizes = {str(size): _cold_and_warm(made, label, settled=settled) for size, made in sizes.items()}
        tally, plain = (first.tallies[name] for name in (label, PLAIN))
        method = entered[label][0] if label in entered else METHODS[PLAIN]
        found[label] = {
            "lossless": method.lossless,
            "knobs": {**method.knobs, **method.chosen},
            **of_sizes[str(name)],
            "score": first.scores[label],
            "categories": _categories(tally, plain, prompts, settled=settled),
            "published": [claim._asdict() for claim in PUBLISHED.get(method.name, ())],
            "batch_sizes": of_sizes,
            "requests": request_rows(tally, prompts),
            **({"turns": _turns(tally, prompts, settled=settled)} if prompts[0].turn else {}),
        }
    plain = found.pop(PLAIN)
    return {"methods": found | {label: {"skipped": why} for label, why in skipped.items()}, "plain": plain}


def _held_back(label: str, tallies: Mapping[str, Tally] | None) -> dict[str, Any]:
    """The fastest method's figures on prompts by which it was not chosen."""
    if tallies is None:
        return {"held_back": None}
    ours, plain = tallies[label], tallies[PLAIN]
    speeds = [float(rate(side, np.ones((1, len(side.tokens))))[0]) for side in (ours, plain)]
    said = {"speedup": speeds[0] / speeds[1], "speedup_ci95": speedup_interval(ours, plain)}
    return {"held_back": {"prompts": len(ours.rounds), "batches": len(ours.tokens), **said}}


def entries(
    methods: Sequence[Method], given: Given, *, lossless_alone: bool = False
) -> tuple[dict[str, tuple[Method, Given]], dict[str, str]]:
    """({label: method and what it is made of}, {name: why it is skipped}), plain decoding left out.

    Of several drafts the smallest goes by the method's own name, each other one by NAME@DRAFT; of several heads the
    first.
    """
    entered, skipped = {}, {}
    for method in methods:
        if method.name == PLAIN:
            continue
        if lack := method.lacks(given):
            skipped[method.label] = lack
            continue
        if lossless_alone and not method.lossless:
            skipped[method.label] = "with shared noise all methods write one text, and a lossy one does not"
            continue
        heads = method.heads_in(given)
        entered[method.label] = method, _with_head(given, heads[0]) if heads else given
        for name, alone in _others(method, given):
            if not method.lacks(alone):
                entered[f"{method.label}@{name}"] = method, alone
    return entered, skipped


def _others(method: Method, given: Given) -> Iterator[tuple[str, Given]]:
    """Every draft or head that the method could have but the first, and what is given with that alone."""
    for kind, takes in (("drafts", A_DRAFT in method.needs), ("foreign", method.translates)):
        for name, draft in list(getattr(given, kind).items())[1:] if takes else ():
            yield name, dataclasses.replace(given, **{kind: {name: draft}})
    for name in method.heads_in(given)[1:]:
        yield name, _with_head(given, name)


def _with_head(given: Given, name: str) -> Given:
    return dataclasses.replace(given, heads={name: given.heads[name]})


def _cold_and_warm(size: Size, label: str, *, settled: bool) -> dict[str, Any]:
    """A contender's figures, and under "warm" those of the same that learns; null where there is nothing to learn."""

    def found(label: str) -> dict[str, Any]:
        return figures(size.tallies[label], size.tallies[PLAIN], settled=settled) | size.machine[label]

    warm = _WARM.format(label)
    return {**found(label), "warm": found(warm) if warm in size.tallies else None}


def _turns(tally: Tally, prompts: Sequence[Prompt], *, settled: bool) -> dict[str, Any]:
    """What the requests say that are a conversation's first turn, its second and so on."""
    turns = np.array([prompt.turn for prompt in prompts])
    return {str(turn): counted(tally, np.flatnonzero(turns == turn), settled=settled) for turn in np.unique(turns)}


def _categories(tally: Tally, plain: Tally, prompts: Sequence[Prompt], *, settled: bool) -> dict[str, Any]:
    """What the requests of each category say; their speed-up only where each was decoded alone."""
    found = {}
    for category in dict.fromkeys(prompt.category for prompt in prompts if prompt.category is not None):
        rows = np.flatnonzero([prompt.category == category for prompt in prompts])
        found[category] = counted(tally, rows, settled=settled)
        if tally.timed and len(tally.seconds) == len(prompts):
            ours, plains = (side.tokens[rows].sum() / side.decoding_seconds[rows].sum() for side in (tally, plain))
            found[category]["speedup"] = float(ours / plains)
    return found
