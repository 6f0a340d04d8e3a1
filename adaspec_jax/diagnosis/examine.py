"""Gathers the evidence of a pair: its files first, then what both say along texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import data, models
from adaspec_jax.data.contamination import plain
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.diagnosis.evidence import Evidence, Names, Served
from adaspec_jax.diagnosis.gather import Pair, compare_prompts, measure_texts, tracked
from adaspec_jax.measuring.costs import LONGEST, rounds_priced
from adaspec_jax.measuring.evaluation import check_contexts
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.measuring.teacher_forced import AlongText
from adaspec_jax.methods import Given
from adaspec_jax.methods.heads import chain_of

_KINDS_OF_TEXT = 5  # where it is known what was trained on
_TIMES = 5


@dataclass(frozen=True)
class Asked:
    """Which texts a pair is examined on."""

    served: data.Source
    trained: data.Source | None = None  # what the draft was trained on
    number: int = 48  # of each that are read
    max_length: int = 512
    max_prompt_length: int = 0
    chat: Callable[[Any, data.Source], data.chat.Chat | None] | None = None  # of (tokenizer, examples)
    seed: int = 0
    batch_size: int = 1  # as they are served; what a round costs depends on it


def examine(names: Names, served: Served, asked: Asked, known: Mapping[str, Any]) -> Evidence:
    """All that can be measured of the two directories or hub names. `known`: fields that a run's record gives."""
    found = {"names": names, "served": served, **known, **compare_files(names.target, names.draft)}
    if found["tokenizer"] is not None:
        return Evidence(**found)
    given, ends = load_given(names.target, [names.draft], dtype="float32")
    draft = _guessing(given)
    found["is_head"] = bool(given.heads)
    found["parameters"] = {"target": given.target.num_params, "draft": _size(given)}
    rows, trained, unended = _encoded(asked, given.tokenizer, ends)
    found["unended_rows"] = unended if unended is not None else known.get("unended_rows")
    longest = max(row.prompt_length for row in (*rows, *trained))
    check_contexts(given, longest + served.max_new_tokens, "lower --max_new_tokens")
    others = {name: _in(given.target, draft, name) for name in ("float32", "bfloat16") if name != served.dtype}
    pair = Pair(*_in(given.target, draft, served.dtype)(), ends, served, asked.seed)
    kinds = 3 if asked.trained is None else _KINDS_OF_TEXT
    with short_of_memory("reading texts", "lower --num_prompts"), tracked(kinds) as progress:
        own_answers, begun = bool(known.get("from_targets_answers")), False

        def advance(what: str) -> None:
            nonlocal begun
            progress.advance(int(begun))
            progress.doing(what)
            begun = True

        found |= measure_texts(pair, rows, trained, other_dtypes=others, of_the_targets=own_answers, advance=advance)
        if asked.trained is not None:
            advance("comparing prompts")
            shared = _shared(asked)
            found["prompts"], found["framed"] = compare_prompts(pair, rows, trained, given.tokenizer, shared)
        advance("measuring what a round costs")
        found["costs"] = _costs(given, (asked.batch_size, longest), served)
        progress.advance(1)
    return Evidence(**found)


def compare_files(target: str, draft: str) -> dict[str, Any]:
    """Of tokenizers and chat templates: the first difference of each, in words, or None."""
    first = data.load_tokenizer(target)
    try:
        second = data.load_tokenizer(draft)
    except data.NoTokenizer:
        return {"tokenizer": None, "own_tokenizer": False, "template": None}
    found = {"tokenizer": data.first_difference(first, second, beyond=True), "own_tokenizer": True, "template": None}
    one, other = (getattr(tokenizer, "chat_template", None) for tokenizer in (first, second))
    if one and other and one != other:
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        here, there = one[at : at + 40], other[at : at + 40]
        found["template"] = f"at character {at} the target's goes on {here!r} and the draft's {there!r}"
    return found


def _guessing(given: Given) -> Any:
    """What guesses: the draft model, or the head along its target's text."""
    if given.heads:
        return AlongText(next(iter(given.heads.values())), given.target)
    return given.draft


def _costs(given: Given, shape_BT: tuple[int, int], served: Served) -> list[dict[str, Any]]:
    """What the parts of a round cost here and now, in seconds, a few times over."""
    draft = next(iter(given.heads.values())) if given.heads else given.draft
    drafter = chain_of(draft, given.target, served.draft_length or 1)
    how = {"shapes_BT": (shape_BT,), "max_new_tokens": served.max_new_tokens}
    found = []
    for _ in range(_TIMES):
        parts = rounds_priced(given, drafter, LONGEST, **how)[shape_BT[0]]
        verification = {str(guesses): seconds for guesses, seconds in parts.verification.items()}
        drafting = {"first": parts.first, "further": parts.further}
        found.append({"verification": verification, "batch_size": shape_BT[0], **drafting})
    return found


def _size(given: Given) -> int:
    guesser = next(iter(given.heads.values())) if given.heads else given.draft
    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(guesser)))


def _in(target: models.CausalLM, draft: Any, dtype: str) -> Callable[[], tuple[Any, Any]]:
    """How to get both in a dtype; kernels of attention are what they are."""

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return lambda: (jax.tree.map(cast, target), jax.tree.map(cast, draft))


def _encoded(asked: Asked, tokenizer, ends: data.Ends) -> tuple[Sequence[data.Encoded], Sequence[data.Encoded], Any]:
    """Served rows, training rows (or none), and which share of all the latter has lost its end (None: not known)."""
    knobs = {"max_length": asked.max_length, "max_prompt_length": asked.max_prompt_length, "eos_id": ends.closing}
    knobs["ends"] = ends.ids

    def of(source: data.Source, encode: Callable[..., Any]) -> tuple[list[data.Encoded], dict[str, Any]]:
        chat = asked.chat(tokenizer, source) if asked.chat else None
        return encode(source, tokenizer, chat=chat, **knobs)

    rows, _ = of(_some(asked.served, asked.number), data.encode)
    if asked.trained is None:
        return rows, [], None
    trained, counts = of(_spread(asked.trained, asked.number, asked.seed), data.encode)
    return rows, trained, counts["truncated"] / max(counts["examples"], 1)


def _some(source: data.Source, number: int) -> data.Source:
    return dataclasses.replace(source, examples=tuple(source[:number]))


def _spread(source: data.Source, number: int, seed: int) -> data.Source:
    """So many examples, drawn by seed: files are often in the order of their kinds."""
    drawn = np.random.default_rng([seed, 3]).permutation(len(source))[:number]
    return dataclasses.replace(source, examples=tuple(source[int(i)] for i in sorted(drawn)))


def _shared(asked: Asked) -> int:
    """Of the served prompts that are read, those that were trained on."""
    some = _some(asked.served, asked.number)
    both = data.shared_prompts(asked.trained, some)
    return sum(plain(example.prompt) in both for example in some)
