"""Training of look-ahead embeddings: slots stand after the text at some places of a row, drawn anew at every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.heads import Head
from adaspec_jax.models.heads.parts.look_ahead import LookAhead
from adaspec_jax.training.divergences import Divergence, forward_kl
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.heads import distill_head
from adaspec_jax.training.objectives.labels import guessing_labels


def distill_ahead(divergence: Divergence = forward_kl, **how: Any) -> Objective:
    """`distill_head`, with the same arguments, at `cuts` places of each row, or as many as there are.

    A place is one where the first slot after it guesses a label. `frozen.target` is needed whole.
    """
    distilled = distill_head(divergence, **how)

    def objective(head: Head, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        key = jax.random.key(0) if frozen.now is None else jax.random.fold_in(frozen.now.key, 3)
        return distilled(head, frozen, replace(batch, places_BT=cut_at(batch, cast(LookAhead, head.config).cuts, key)))

    return objective


def cut_at(batch: Batch, cuts: int, key: Array) -> Array:
    """bool [B, T]: so many places of each row, drawn among those after which a label is guessed."""
    may_BT = guessing_labels(batch, 1)
    draw_BT = jnp.where(may_BT, jax.random.uniform(key, may_BT.shape), 2.0)
    return may_BT & (jnp.argsort(jnp.argsort(draw_BT, axis=1), axis=1) < cuts)
