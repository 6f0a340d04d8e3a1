"""Divergences, token selection, objectives, and the loop that fits one model against frozen others."""

from adaspec_jax.training import divergences, objectives, selection
from adaspec_jax.training.checkpoints import Checkpoints
from adaspec_jax.training.label_chunks import Chunking
from adaspec_jax.training.loop import NotFinite, State, fit, init_state, make_step
from adaspec_jax.training.lora import adapting, init_lora, merged
from adaspec_jax.training.objectives import Batch, Frozen
from adaspec_jax.training.optimizers import adamw, learning_rate

__all__ = [
    "Batch",
    "Checkpoints",
    "Chunking",
    "Frozen",
    "NotFinite",
    "State",
    "adamw",
    "adapting",
    "divergences",
    "fit",
    "init_lora",
    "init_state",
    "learning_rate",
    "make_step",
    "merged",
    "objectives",
    "selection",
]
