"""The target's own objective: next-token cross entropy."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Sizes, Values, total_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.labels import count_of, features_in_parts, labels_of, mean_over, vocab_size_of


def fine_tune(*, chunking: Chunking = DEFAULT, micro_batches: int = 1) -> Objective:
    """Mean cross-entropy (nats) of the labels. Metrics: tokens, accuracy.

    `micro_batches`, of every objective: rows go through the layers in so many parts, one after another, and the
    backward pass computes each part again. Losses, choices and gradients are those of the whole batch, memory is that
    of one part and of all final hidden states. Each row group of `chunking` must divide into them.
    """
    features = features_in_parts(micro_batches, chunking)

    def per_token(model: Any, hidden_GCD: Array, labels_GC: Array, frozen: Any) -> tuple[Array, Values]:
        logits_GCV = model.unembed(hidden_GCD)
        losses_GC = optax.losses.softmax_cross_entropy_with_integer_labels(logits_GCV, labels_GC)
        chosen_GC = jnp.take_along_axis(logits_GCV, labels_GC[..., None], axis=-1)[..., 0]
        return losses_GC, {"accuracy": chosen_GC == jnp.max(logits_GCV, axis=-1)}

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        del frozen
        labels_BT, mask_BT = labels_of(batch)
        hidden_BTD = features(model, batch)
        sizes: Sizes = {"vocab_size": vocab_size_of(model, hidden_BTD), "chunking": chunking}
        total, values = total_at(mask_BT, per_token, model.unembedding(), hidden_BTD, labels_BT, None, **sizes)
        return total / count_of(mask_BT), {
            "tokens": jnp.sum(mask_BT),
            "accuracy": mean_over(values["accuracy"], mask_BT),
        }

    return objective
