"""Collections of texts that can be searched, in NumPy."""

from adaspec_jax.retrieval.bm25 import BM25
from adaspec_jax.retrieval.grouping import clusters, subsets
from adaspec_jax.retrieval.store import BETWEEN, Store, read_store, write_store
from adaspec_jax.retrieval.suffix_array import suffix_array

__all__ = ["BETWEEN", "BM25", "Store", "clusters", "read_store", "subsets", "suffix_array", "write_store"]
