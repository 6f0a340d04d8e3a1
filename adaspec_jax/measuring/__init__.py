"""Acceptance, speed and costs of drafters against one target."""

from adaspec_jax.measuring.measure import MEASURED_HOW, Measured, measure, report_fields
from adaspec_jax.measuring.pair import load_given, load_pair
from adaspec_jax.measuring.turns import Contender

__all__ = ["MEASURED_HOW", "Contender", "Measured", "load_given", "load_pair", "measure", "report_fields"]
