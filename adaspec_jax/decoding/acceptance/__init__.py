"""Acceptance rules: which guesses stay, and which token the target adds."""

from adaspec_jax.decoding.acceptance.block import block_verification
from adaspec_jax.decoding.acceptance.fuzzy import Fuzzy
from adaspec_jax.decoding.acceptance.kseq import k_sequential
from adaspec_jax.decoding.acceptance.lenient import Lenient
from adaspec_jax.decoding.acceptance.match import match_sample
from adaspec_jax.decoding.acceptance.rejection import rejection_sample
from adaspec_jax.decoding.acceptance.review import Review
from adaspec_jax.decoding.acceptance.thresholds import Rollback, TopBeta
from adaspec_jax.decoding.acceptance.tolerance import Tolerance
from adaspec_jax.decoding.acceptance.traversal import traversal_verification
from adaspec_jax.decoding.acceptance.typical import Typical

__all__ = [
    "Fuzzy",
    "Lenient",
    "Review",
    "Rollback",
    "Tolerance",
    "TopBeta",
    "Typical",
    "block_verification",
    "k_sequential",
    "match_sample",
    "rejection_sample",
    "traversal_verification",
]
