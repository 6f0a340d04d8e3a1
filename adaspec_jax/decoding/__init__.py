"""Lossless speculative decoding: one jitted loop of propose, verify and commit for every drafter."""

from adaspec_jax.decoding.acceptance import (
    Fuzzy,
    Lenient,
    Review,
    Rollback,
    Tolerance,
    TopBeta,
    Typical,
    block_verification,
    k_sequential,
    match_sample,
    rejection_sample,
    traversal_verification,
)
from adaspec_jax.decoding.dialogue import Dialogue
from adaspec_jax.decoding.drafters import Cascade, ChainDrafter, GrowthDrafter, NoDraft, Relay, TreeDrafter
from adaspec_jax.decoding.engine import generate, generate_from_queue
from adaspec_jax.decoding.lengths import Analytical, FiniteState
from adaspec_jax.decoding.logprobs import Logprobs
from adaspec_jax.decoding.memory import generate_and_learn, remembers, with_memory
from adaspec_jax.decoding.noise import request_keys
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.stopping import Confident, ConfidentEnough, Fallback, Stop, Survival, WholeStop
from adaspec_jax.decoding.streaming import stream
from adaspec_jax.decoding.types import (
    GUESS,
    PROMPT,
    TARGET,
    Accept,
    Asks,
    Context,
    Drafter,
    Entry,
    Generation,
    Model,
    Proposal,
    Verdict,
    WholeDrafter,
)

__all__ = [
    "GUESS",
    "PROMPT",
    "TARGET",
    "Accept",
    "Analytical",
    "Asks",
    "Cascade",
    "ChainDrafter",
    "Confident",
    "ConfidentEnough",
    "Context",
    "Dialogue",
    "Drafter",
    "Entry",
    "Fallback",
    "FiniteState",
    "Fuzzy",
    "Generation",
    "GrowthDrafter",
    "Lenient",
    "Logprobs",
    "Model",
    "NoDraft",
    "Proposal",
    "Relay",
    "Review",
    "Rollback",
    "Sampling",
    "Stop",
    "Survival",
    "Tolerance",
    "TopBeta",
    "TreeDrafter",
    "Typical",
    "Verdict",
    "WholeDrafter",
    "WholeStop",
    "block_verification",
    "generate",
    "generate_and_learn",
    "generate_from_queue",
    "k_sequential",
    "match_sample",
    "pytree",
    "rejection_sample",
    "remembers",
    "request_keys",
    "stream",
    "traversal_verification",
    "with_memory",
]
