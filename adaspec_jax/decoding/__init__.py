"""Lossless speculative decoding: one jitted loop of propose, verify and commit for every drafter."""

from adaspec_jax.decoding.acceptance import Lenient, rejection_sample
from adaspec_jax.decoding.drafters import ChainDrafter, NoDraft, TreeDrafter
from adaspec_jax.decoding.engine import generate, generate_from_queue
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import GUESS, PROMPT, TARGET, Context, Drafter, Generation, Proposal, Verdict

__all__ = [
    "GUESS",
    "PROMPT",
    "TARGET",
    "ChainDrafter",
    "Context",
    "Drafter",
    "Generation",
    "Lenient",
    "NoDraft",
    "Proposal",
    "Sampling",
    "TreeDrafter",
    "Verdict",
    "generate",
    "generate_from_queue",
    "rejection_sample",
]
