"""Acceptance, speed and costs of drafts against one target."""

from adaspec_jax.measuring.measure import MEASURED_HOW, Measured, measure, report_fields
from adaspec_jax.measuring.pair import load_pair

__all__ = ["MEASURED_HOW", "Measured", "load_pair", "measure", "report_fields"]
