"""Drafters, a file per generation slot of the field's survey (arXiv 2502.19732)."""

from adaspec_jax.decoding.drafters.chain import ChainDrafter
from adaspec_jax.decoding.drafters.no_draft import NoDraft
from adaspec_jax.decoding.drafters.tree import TreeDrafter

__all__ = ["ChainDrafter", "NoDraft", "TreeDrafter"]
