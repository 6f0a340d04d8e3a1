"""What each random choice of a run is drawn from, by the config's seed; no two that draw alike share a key.

Runs differ by seeds that follow one another, so a key that another purpose of the next seed has is no key of one's own.
"""

from __future__ import annotations

import zlib

import jax

_WEIGHTS = {"target": 0, "draft": 1, "qualifier": 4, "stop": 16}


def initial_weights(seed: int, name: str) -> jax.Array:
    """Of a model that begins at random: "target", "draft" or "qualifier"."""
    return jax.random.fold_in(jax.random.key(seed), _WEIGHTS[name])


def stage(seed: int) -> jax.Array:
    """Of what a stage draws: first adapters, then by step the rounding, random rules and answers sampled on the way."""
    return jax.random.fold_in(jax.random.key(seed), 2)


def data_order(seed: int) -> int:
    """Of the order in which a stage sees its rows (a NumPy seed); the same in all stages."""
    return seed + 2


def packing(seed: int) -> list[int]:
    """Of which examples share a row (a NumPy seed); the same in all stages. Two words: no order of rows is drawn so."""
    return [seed, zlib.crc32(b"packing")]


def evaluation(seed: int) -> int:
    """Of the continuations that acceptance is measured on; batch n folds n into its key."""
    return seed + 3


def answers(seed: int) -> jax.Array:
    """Of the target's own answers, sampled once; block n folds n into it.

    Folded by a name, which no count of batches reaches: neither this seed's keys nor any other's are among its blocks'.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"answers"))
