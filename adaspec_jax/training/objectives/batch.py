"""What an objective is given and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """`loss_mask_BT[b, t]` marks that `tokens_BT[b, t]` is a supervised label, predicted from what precedes it.

    What frozen models give at the position that predicts the label (t - 1) may be stored beside it, and is computed
    where it is not: the target's final hidden state, or its K likeliest tokens and their log-probabilities; and the
    reference's divergence from the target, in the measure that the objective uses.

    `target_features_BTF`: the target's hidden states that a head reads, side by side, at every token.

    Heads may read other tokens than those they are held to, `read_tokens_BT`, and guess at some places, `places_BT`.

    Where rows hold several examples, `segments_BT` numbers them from 1 on in every row, 0 is padding, and the first
    token of none is a label.
    """

    tokens_BT: Array
    loss_mask_BT: Array
    target_hidden_BTD: Array | None = None
    reference_divergence_BT: Array | None = None
    target_ids_BTK: Array | None = None
    target_log_probs_BTK: Array | None = None
    target_features_BTF: Array | None = None
    segments_BT: Array | None = None
    read_tokens_BT: Array | None = None
    places_BT: Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Now:
    """Where training stands: what a rule that changes with time, or draws, may depend on."""

    step: Array  # int32, batches seen
    key: Array  # of this step alone


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """The models an objective only reads; arguments of the step, never closures.

    Where a batch brings the target's hidden states, its output matrix is enough (`unembedding`). A target whose
    likeliest tokens it brings, and a reference whose divergence it brings, may be None. `base` is the model that
    low-rank adapters belong to; `now` is set by the training step. `classes_V`: the index in `data.TOKEN_CLASSES` of
    every token, by which a selective objective counts what it selects; None: nothing is counted.
    """

    target: Any = None
    reference: Any = None
    base: Any = None
    now: Now | None = None
    classes_V: Any = None


Metrics = dict[str, Array]


Objective = Callable[[Any, Frozen, Batch], tuple[Array, Metrics]]
