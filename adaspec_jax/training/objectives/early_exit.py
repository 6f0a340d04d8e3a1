"""LayerSkip's training: a model that may stop after any of its layers (Elhoushi et al. 2024, arXiv 2404.16710).

It changes the model itself: what is decoded afterwards is the tuned model's text, without loss with respect to that
model alone, and not to the one before.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Values, total_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.labels import (
    count_of,
    in_parts,
    labels_of,
    mean_over,
    rows_beside,
    vocab_size_of,
)

Curriculum = Literal["gradual", "rotational", "one", "all"]
Weights = Literal["linear", "cumulative", "uniform"]


def early_exit(
    *,
    p_max: float = 0.1,
    scale: float = 1.0,
    weights: Weights = "linear",
    curriculum: Curriculum = "gradual",
    period: int = 8,
    steps: int = 1,
    chunking: Chunking = DEFAULT,
    micro_batches: int = 1,
) -> Objective:
    """The weighted mean cross entropy (nats) of the labels at the exits that are on, by final norm and output matrix.

    Args:
      p_max: the last layer is left out of a row so often, layer l of L with p_max (exp(l ln 2 / (L - 1)) - 1); without
        `frozen.now` (a loss that is measured) none is. Rows draw apart, and nothing is rescaled.
      scale: of the weights of all exits but the last; 0: plain fine-tuning with layer dropout.
      weights: of the exit after layer l: l + 1, its sum 1 + ... + (l + 1), or 1; made to sum to 1 over those on.
      curriculum: which exits are on, the last always. "gradual": that after layer l from the share (L - l) / 2 L of the
        `steps` on, the deep ones first; "rotational": every `period`-th, one layer further at each step [mem]; "one":
        one at each step in turn, which with uniform weights is TRL's loss; "all".
      steps: of the whole training.

    Metrics: tokens, accuracy and last_loss of the last exit, exits: how many are on.
    """
    for name, value, known in (("weights", weights, Weights), ("curriculum", curriculum, Curriculum)):
        if value not in get_args(known):
            raise ValueError(f'{name} must be one of {", ".join(get_args(known))}, not "{value}"')
    if not 0 <= p_max < 1 or not 0 <= scale < math.inf or min(period, steps) < 1:
        raise ValueError(f"p_max {p_max}, scale {scale}, period {period} and steps {steps}: out of range")

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        layers, rows = model.config.num_layers, len(batch.tokens_BT)
        labels_BT, mask_BT = labels_of(batch)
        step = jnp.int32(steps) if frozen.now is None else frozen.now.step
        weight_I = _weights(weights, scale, exits_on(curriculum, layers, step, steps=steps, period=period))
        skips_BL = jnp.zeros((rows, layers), bool)
        if frozen.now is not None and p_max:
            skips_BL = jax.random.bernoulli(frozen.now.key, _shares(p_max, layers)[None], (rows, layers))
        given = (batch.tokens_BT, batch.segments_BT, skips_BL)
        hidden_BTID = in_parts(_at_exits, model, given, micro_batches=micro_batches, chunking=chunking)
        hidden_BITD = jnp.moveaxis(hidden_BTID, 2, 1)
        each_BIT = jnp.broadcast_to(weight_I[None, :, None], (rows, layers, mask_BT.shape[1]))
        on_BIT = mask_BT[:, None] & (each_BIT > 0)
        operands = (jnp.broadcast_to(labels_BT[:, None], on_BIT.shape), each_BIT / count_of(mask_BT))
        total, values = total_at(
            rows_beside(on_BIT),
            _per_token,
            model.unembedding(),
            rows_beside(hidden_BITD),
            jax.tree.map(rows_beside, operands),
            None,
            vocab_size=vocab_size_of(model, hidden_BITD[:, 0]),
            chunking=chunking,
        )
        last = {name: value.reshape(on_BIT.shape)[:, -1] for name, value in values.items()}
        said = {name: mean_over(value, mask_BT) for name, value in last.items()}
        return total, said | {"tokens": jnp.sum(mask_BT), "exits": jnp.sum(weight_I > 0)}

    return objective


def exits_on(curriculum: str, layers: int, step: Array, *, steps: int, period: int = 8) -> Array:
    """bool [L]: after which layers there is a loss at this step, counted from 0."""
    layer_L = jnp.arange(layers)
    if curriculum == "gradual":
        on_L = step / steps >= 0.5 * (layers - layer_L) / layers
    elif curriculum == "rotational":
        on_L = (layer_L - step) % period == 0
    elif curriculum == "one":
        on_L = layer_L == step % max(layers - 1, 1)
    else:
        on_L = layer_L >= 0
    return on_L | (layer_L == layers - 1)


def _weights(weights: str, scale: float, on_L: Array) -> Array:
    number_L = np.arange(1, len(on_L) + 1)
    by_name = {"linear": number_L, "cumulative": np.cumsum(number_L), "uniform": np.ones_like(number_L)}
    raw_L = jnp.where(on_L, jnp.asarray(by_name[weights], jnp.float32), 0.0).at[:-1].multiply(scale)
    return raw_L / jnp.sum(raw_L)


def _shares(p_max: float, layers: int) -> Array:
    """How often each layer is left out of a row."""
    return p_max * (jnp.exp(jnp.arange(layers) * math.log(2) / max(layers - 1, 1)) - 1)


def _at_exits(model: Any, given: tuple[Array, Array | None, Array]) -> Array:
    """[B, T, L, D]: what the final norm makes of the residual stream after each layer, the skipped ones left out."""
    tokens_BT, segments_BT, skips_BL = given
    where = {} if segments_BT is None else {"segments_BT": segments_BT}
    found, layers = [], model.config.num_layers
    before_BTD: Any = model.run(tokens_BT, last=0, **where).hidden
    for layer in range(layers):
        hidden_BTD = model.run(tokens_BT, first=layer, last=layer + 1, hidden_BTD=before_BTD, **where).hidden
        before_BTD = jnp.where(skips_BL[:, layer, None, None], before_BTD, hidden_BTD)
        found.append(model.run(tokens_BT, first=layers, hidden_BTD=before_BTD, **where).hidden)
    return jnp.stack(found, axis=2)


def _per_token(model: Any, hidden_GCD: Array, operands: tuple[Array, Array], frozen: Any) -> tuple[Array, Values]:
    labels_GC, weight_GC = operands
    logits_GCV = model.unembed(hidden_GCD)
    losses_GC = optax.losses.softmax_cross_entropy_with_integer_labels(logits_GCV, labels_GC)
    chosen_GC = jnp.take_along_axis(logits_GCV, labels_GC[..., None], axis=-1)[..., 0]
    right_GC = chosen_GC == jnp.max(logits_GCV, axis=-1)
    return weight_GC * losses_GC, {"accuracy": right_GC, "last_loss": losses_GC}
