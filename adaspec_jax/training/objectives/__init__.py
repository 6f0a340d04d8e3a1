"""What a stage minimises: pure functions (model, frozen, batch) -> (loss, metrics)."""

from adaspec_jax.training.objectives.distill import (
    Batch,
    Frozen,
    Metrics,
    Now,
    Objective,
    distill,
    divergence_at_labels,
    fine_tune,
    selective_distill,
    top_k_at_labels,
)

__all__ = [
    "Batch",
    "Frozen",
    "Metrics",
    "Now",
    "Objective",
    "distill",
    "divergence_at_labels",
    "fine_tune",
    "selective_distill",
    "top_k_at_labels",
]
