"""Collections of texts that can be searched, in NumPy."""

from adaspec_jax.retrieval.store import BETWEEN, Store, read_store, write_store
from adaspec_jax.retrieval.suffix_array import suffix_array

__all__ = ["BETWEEN", "Store", "read_store", "suffix_array", "write_store"]
