"""A collection of texts in a directory: tokens, their suffixes in order, and what they were made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.files import making_folder, read_json, sha256, write_json
from adaspec_jax.program import called_as
from adaspec_jax.retrieval.suffix_array import suffix_array

BETWEEN = -1  # stands between two texts
DEPTH = 64  # tokens by which suffixes are ordered
_TOKENS, _ORDER, _ABOUT = "tokens.npy", "suffixes.npy", "datastore.json"


class Store(NamedTuple):
    """Texts one after the other, `BETWEEN` after each, and the order of their suffixes."""

    tokens_T: np.ndarray  # int32
    order_T: np.ndarray  # int32
    about: Mapping[str, Any]  # tokenizer (its fingerprint), texts, tokens, depth, source, sha256 of the arrays

    @property
    def depth(self) -> int:
        return self.about["depth"]


def write_store(directory: str | os.PathLike, texts: Sequence[Sequence[int]], **about: Any) -> Store:
    """The store of these texts' tokens, in a new directory that appears whole; `about` goes into its description."""
    tokens_T = np.concatenate([np.asarray([*text, BETWEEN], np.int32) for text in texts])
    if len(tokens_T) >= 2**31:
        raise UserError(f"{len(tokens_T)} tokens are more than a datastore can number; take fewer rows")
    order_T = suffix_array(tokens_T, depth=DEPTH)
    with making_folder(directory) as folder:
        np.save(folder / _TOKENS, tokens_T)
        np.save(folder / _ORDER, order_T)
        sums = {name: sha256(folder / name) for name in (_TOKENS, _ORDER)}
        counts = {"texts": len(texts), "tokens": len(tokens_T) - len(texts), "depth": DEPTH}
        write_json(folder / _ABOUT, {**about, **counts, "sha256": sums})
    return Store(tokens_T, order_T, {**about, **counts})


def read_store(directory: str | os.PathLike, *, tokenizer: str) -> Store:
    """The store; UserError where it is none, is torn, or was made with another tokenizer than this fingerprint's."""
    folder = Path(directory)
    if not (folder / _ABOUT).is_file():
        raise UserError(f"{folder} is not a datastore: it has no {_ABOUT}; {_mend()}")
    about = read_json(folder / _ABOUT, mend=_mend())
    if about.get("tokenizer") != tokenizer:
        raise UserError(f"the datastore {folder} was made with another tokenizer than the target's; {_mend()}")
    sums = about.get("sha256")
    arrays = []
    for name in (_TOKENS, _ORDER):
        if not (folder / name).is_file() or sha256(folder / name) != (sums if isinstance(sums, dict) else {}).get(name):
            raise UserError(f"the datastore {folder} is torn: {name} is not what {_ABOUT} says; {_mend()}")
        arrays.append(np.load(folder / name))
    tokens_T, order_T = arrays
    return Store(tokens_T, order_T, about)


def _mend() -> str:
    return f"build it again: {called_as('datastore')} build"
