"""Acceptance rules: which guesses stay, and which token the target adds."""

from adaspec_jax.decoding.acceptance.rejection import Lenient, rejection_sample

__all__ = ["Lenient", "rejection_sample"]
