"""Model families: how a config.json and its tensors become the one decoder, a file per family."""

from adaspec_jax.models.families.table import FAMILIES, config_from_hf, family

__all__ = ["FAMILIES", "config_from_hf", "family"]
