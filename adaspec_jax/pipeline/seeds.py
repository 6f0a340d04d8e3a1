"""What each random choice of a run is drawn from, by the config's seed."""

from __future__ import annotations

import jax

_WEIGHTS = {"target": 0, "draft": 1}


def initial_weights(seed: int, name: str) -> jax.Array:
    """Of a model that begins at random: "target" or "draft"."""
    return jax.random.fold_in(jax.random.key(seed), _WEIGHTS[name])


def stage(seed: int) -> jax.Array:
    """Of what a stage draws: first adapters, then by step the rounding, random rules and answers sampled on the way."""
    return jax.random.fold_in(jax.random.key(seed), 2)


def data_order(seed: int) -> int:
    """Of the order in which a stage sees its rows (a NumPy seed); the same in all stages."""
    return seed + 2


def evaluation(seed: int) -> int:
    """Of the continuations that acceptance is measured on; batch n folds n into its key."""
    return seed + 3


def answers(seed: int) -> jax.Array:
    """Of the target's own answers, sampled once; block n folds n into it."""
    return jax.random.key(seed + 4)
