"""Training rows whose prompt is also an evaluation prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from adaspec_jax.data.sources import Source, digest
from adaspec_jax.errors import UserError

_OPENING = 6  # words by which a prompt is looked for
MOST = 0.01  # of either side's prompts: beyond that the two were not meant to be apart


def shared_prompts(train: Source, held_out: Source) -> set[str]:
    """Prompts, in plain form (letter case and white space do not count), that both have."""
    asked = {plain(example.prompt) for example in held_out}
    return {prompt for example in train if (prompt := plain(example.prompt)) in asked}


def without_shared(train: Source, held_out: Source) -> tuple[Source, int]:
    """The training examples without those whose prompt is held out, and how many those were.

    UserError where more than 1 % of either side would be concerned.
    """
    asked = [plain(example.prompt) for example in held_out]
    taken = set(asked)
    shared = {i: prompt for i, example in enumerate(train) if (prompt := plain(example.prompt)) in taken}
    kept = tuple(example for i, example in enumerate(train) if i not in shared)
    removed, both = len(shared), set(shared.values())
    met = sum(prompt in both for prompt in asked)
    if removed > MOST * len(train) or met > MOST * len(held_out):
        raise UserError(
            f"{removed} of {len(train)} training rows have one of {met} of {len(held_out)} evaluation prompts, which "
            "is more than 1 %: take rows that do not overlap (data.train_rows, data.evaluation_rows), another file or "
            'split, or set data.contamination="allow"'
        )
    if not removed:
        return train, 0
    described = train.description | {"rows": len(kept), "examples_sha256": digest(kept)}
    return dataclasses.replace(train, examples=kept, description=described), removed


def plain(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()


def holding(texts: Iterable[str], prompts: Iterable[str]) -> set[int]:
    """Which of the texts have one of the prompts anywhere in them, in plain form."""
    wanted: dict[tuple[str, ...], list[list[str]]] = {}
    for prompt in filter(None, (plain(prompt).split() for prompt in prompts)):
        wanted.setdefault(tuple(prompt[:_OPENING]), []).append(prompt)
    sizes = {len(opening) for opening in wanted}
    found = set()
    for number, text in enumerate(texts):
        words = plain(text).split()
        starts = ((at, wanted.get(tuple(words[at : at + size]), ())) for at in range(len(words)) for size in sizes)
        if any(words[at : at + len(prompt)] == prompt for at, prompts in starts for prompt in prompts):
            found.add(number)
    return found
