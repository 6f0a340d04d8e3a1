"""Published systems by name: a drafter, an acceptance rule, and what the two need and promise."""

from adaspec_jax.knobs import spelt
from adaspec_jax.methods.directories import load_drafter, method_for
from adaspec_jax.methods.method import A_DATASTORE, A_DRAFT, COSTS, Given, Method, Need
from adaspec_jax.methods.published import PUBLISHED
from adaspec_jax.methods.said import SAID, WHERE_TO_BEGIN
from adaspec_jax.methods.table import METHODS, find, find_all, swept

__all__ = [
    "A_DATASTORE",
    "A_DRAFT",
    "COSTS",
    "METHODS",
    "PUBLISHED",
    "SAID",
    "WHERE_TO_BEGIN",
    "Given",
    "Method",
    "Need",
    "find",
    "find_all",
    "load_drafter",
    "method_for",
    "spelt",
    "swept",
]
