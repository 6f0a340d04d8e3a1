"""Several ways to decode the same prompts, taken in turn, so that all of them meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adaspec_jax.decoding import Context, Generation, rejection_sample
from adaspec_jax.decoding.types import Drafter

PLAIN = "plain"  # the name that plain decoding goes by among contenders


class Contender(NamedTuple):
    """A drafter, the rule by which its guesses are accepted, and whether requests learn from those before them."""

    drafter: Drafter
    accept: Callable[..., Any] = rejection_sample
    learns: bool = False
    exact: bool | int = False  # as `decoding.generate` takes it


class Turn(NamedTuple):
    """What one way of decoding made of a batch, and how long it took, compilation not counted."""

    made: Any
    seconds: float


class Batch(NamedTuple):
    """Prompts as `data.prompt_batches` gives them, where they are decoded."""

    prompt: Context  # placed
    key: jax.Array
    lengths_B: np.ndarray  # of the prompts
    valid: int  # rows that count


def take_turns(
    ways: Mapping[Hashable, Callable[[Context, jax.Array], Any]],
    batches: Sequence[Mapping[str, Any]],
    key: jax.Array,
    *,
    place: Callable[[Any], Any] = lambda rows: rows,
    warm: set | None = None,
    doing: Callable[[str], None] = lambda what: None,
) -> Iterator[tuple[Batch, dict[Hashable, Turn]]]:
    """Every batch with what each of `ways` made of it. Who comes first changes from batch to batch.

    A way is a function of (prompt, key). Its first call for a shape is made twice, and the second counts. `warm`: which
    were called before, where the same ways take turns again; it is added to. `doing` is told of what takes long.
    """
    warm, names = set() if warm is None else warm, list(ways)
    for number, rows in enumerate(batches):
        prompt = Context(place(rows["tokens_BT"]), place(rows["lengths_B"]))
        batch = Batch(prompt, jax.random.fold_in(key, number), rows["lengths_B"], rows["valid"])
        first, turns = number % len(names), {}
        for name in names[first:] + names[:first]:
            if (shape := (name, prompt.tokens_BS.shape)) not in warm:
                doing(f"compiling {name if isinstance(name, str) else ' '.join(map(str, name))}")
                jax.block_until_ready(ways[name](batch.prompt, batch.key))
                warm.add(shape)
            began = time.perf_counter()
            made = jax.block_until_ready(ways[name](batch.prompt, batch.key))
            turns[name] = Turn(made, time.perf_counter() - began)
        yield batch, turns


def counts_of(made: Generation, batch: Batch) -> dict[str, np.ndarray]:
    """What the rows that count were given: per row [P], and rounds by accepted guesses over all of them [N + 1].

    `made` holds whole NumPy arrays.
    """
    valid = batch.valid
    return {
        "accepted": made.accepted_BN.sum(1)[:valid],
        "judged": made.judged_BN.sum(1)[:valid],
        "drafted": made.drafted_B[:valid],
        "committed": (made.lengths_B - batch.lengths_B)[:valid],
        "rounds": made.rounds_B[:valid],
        "histogram": made.histogram_BM[:valid].sum(0),
    }


def same_text(made: Generation, other: Generation, batch: Batch) -> np.ndarray:
    """[P] whether a row's tokens are those of the other generation."""
    return np.all(made.tokens_BS == other.tokens_BS, axis=1)[: batch.valid]
