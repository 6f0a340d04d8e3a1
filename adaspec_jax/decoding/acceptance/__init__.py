"""Acceptance rules: which guesses stay, and which token the target adds."""

from adaspec_jax.decoding.acceptance.lenient import Lenient
from adaspec_jax.decoding.acceptance.rejection import rejection_sample

__all__ = ["Lenient", "rejection_sample"]
