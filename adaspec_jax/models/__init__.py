"""Models: Hugging Face weights as `CausalLM` values, one decoder for every family."""

from adaspec_jax.models.causal_lm import CausalLM, build
from adaspec_jax.models.families import config_from_hf
from adaspec_jax.models.files.directories import find_directory, load, save
from adaspec_jax.models.kv_cache import KVCache

__all__ = ["CausalLM", "KVCache", "build", "config_from_hf", "find_directory", "load", "save"]
