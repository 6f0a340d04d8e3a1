"""What the teacher store holds of a batch."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from adaspec_jax.training.divergences import Divergence
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Sizes, Values, values_at
from adaspec_jax.training.lessons import lesson_of
from adaspec_jax.training.objectives.batch import Batch
from adaspec_jax.training.objectives.labels import features_in_parts, labels_of, taught_of, vocab_size_of
from adaspec_jax.training.top_k import top_k_law


def divergence_at_labels(
    divergence: Divergence, model: Any, target: Any, batch: Batch, *, chunking: Chunking = DEFAULT
) -> Array:
    """[B, T]: of `model` from the target at the positions that predict labels, 0 elsewhere; carries no gradient."""
    _, mask_BT = labels_of(batch)
    features = features_in_parts(1, chunking)
    operands = (jax.lax.stop_gradient(features(model, batch)), taught_of(target, batch, features))

    def value(operands: Any) -> Values:
        hidden_GCD, taught = operands
        return {"divergence": lesson_of(target, taught).divergence(divergence, model.unembed(hidden_GCD))}

    sizes: Sizes = {"vocab_size": vocab_size_of(model, operands[0]), "chunking": chunking}
    return values_at(mask_BT, value, operands, **sizes)["divergence"]


def top_k_at_labels(target: Any, batch: Batch, k: int, *, chunking: Chunking = DEFAULT) -> tuple[Array, Array]:
    """`top_k_law` of the target, (ids [B, T, K], log-probabilities [B, T, K]), where labels are predicted; else 0."""
    _, mask_BT = labels_of(batch)
    hidden_BTD = jax.lax.stop_gradient(features_in_parts(1, chunking)(target, batch))

    def value(hidden_GCD: Array) -> Values:
        ids_GCK, log_probs_GCK = top_k_law(target.unembed(hidden_GCD), k)
        return {"ids": ids_GCK, "log_probs": log_probs_GCK}

    values = values_at(mask_BT, value, hidden_BTD, vocab_size=vocab_size_of(target, hidden_BTD), chunking=chunking)
    return values["ids"], values["log_probs"]
