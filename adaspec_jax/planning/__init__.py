"""What a config would need and take on devices that are not here."""

from adaspec_jax.planning.plans import DECODING_SHARE, STAGES, TRAINING_SHARE, Plan
from adaspec_jax.planning.roofline import verdict

__all__ = ["DECODING_SHARE", "STAGES", "TRAINING_SHARE", "Plan", "verdict"]
