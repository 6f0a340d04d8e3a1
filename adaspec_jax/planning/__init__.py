"""What a config would need and take on devices that are not here."""

from adaspec_jax.planning.decoding import DECODING_SHARE
from adaspec_jax.planning.examples import answering
from adaspec_jax.planning.kept import Kept, folder
from adaspec_jax.planning.plans import STAGES, Plan, left_out
from adaspec_jax.planning.roofline import verdict
from adaspec_jax.planning.training import TRAINING_SHARE

__all__ = ["DECODING_SHARE", "STAGES", "TRAINING_SHARE", "Kept", "Plan", "answering", "folder", "left_out", "verdict"]
