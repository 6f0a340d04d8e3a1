"""What a stage minimises: pure functions (model, frozen, batch) -> (loss, metrics)."""

from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Now, Objective
from adaspec_jax.training.objectives.distill import distill, selective_distill
from adaspec_jax.training.objectives.early_exit import early_exit
from adaspec_jax.training.objectives.fine_tune import fine_tune
from adaspec_jax.training.objectives.glancing import distill_glancing
from adaspec_jax.training.objectives.heads import distill_head
from adaspec_jax.training.objectives.look_ahead import distill_ahead
from adaspec_jax.training.objectives.mask_slots import MASKS, Masks
from adaspec_jax.training.objectives.masked import distill_masked
from adaspec_jax.training.objectives.stop_head import Stopping, fit_stop_head
from adaspec_jax.training.objectives.stored import divergence_at_labels, top_k_at_labels

__all__ = [
    "MASKS",
    "Batch",
    "Frozen",
    "Masks",
    "Metrics",
    "Now",
    "Objective",
    "Stopping",
    "distill",
    "distill_ahead",
    "distill_glancing",
    "distill_head",
    "distill_masked",
    "divergence_at_labels",
    "early_exit",
    "fine_tune",
    "fit_stop_head",
    "selective_distill",
    "top_k_at_labels",
]
