"""Drafters, a file per generation slot of the field's survey (arXiv 2502.19732)."""

from adaspec_jax.decoding.drafters.models.cascade import Cascade
from adaspec_jax.decoding.drafters.models.chain import ChainDrafter
from adaspec_jax.decoding.drafters.models.growth import GrowthDrafter
from adaspec_jax.decoding.drafters.models.relay import Relay
from adaspec_jax.decoding.drafters.models.tree import TreeDrafter
from adaspec_jax.decoding.drafters.none import NoDraft

__all__ = ["Cascade", "ChainDrafter", "GrowthDrafter", "NoDraft", "Relay", "TreeDrafter"]
