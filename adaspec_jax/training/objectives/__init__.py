"""What a stage minimises: pure functions (model, frozen, batch) -> (loss, metrics)."""

from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Now, Objective
from adaspec_jax.training.objectives.distill import distill, selective_distill
from adaspec_jax.training.objectives.fine_tune import fine_tune
from adaspec_jax.training.objectives.heads import distill_head
from adaspec_jax.training.objectives.stored import divergence_at_labels, top_k_at_labels

__all__ = [
    "Batch",
    "Frozen",
    "Metrics",
    "Now",
    "Objective",
    "distill",
    "distill_head",
    "divergence_at_labels",
    "fine_tune",
    "selective_distill",
    "top_k_at_labels",
]
