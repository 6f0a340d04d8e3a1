"""Models: Hugging Face weights as `CausalLM` values, one decoder for every family."""

from adaspec_jax.models.causal_lm import CausalLM, build
from adaspec_jax.models.families import config_from_hf
from adaspec_jax.models.files.directories import asked_by, asked_of, find_directory, load, save
from adaspec_jax.models.files.tokenizer_files import write_tokenizer
from adaspec_jax.models.kv_cache import KVCache

__all__ = [
    "CausalLM",
    "KVCache",
    "asked_by",
    "asked_of",
    "build",
    "config_from_hf",
    "find_directory",
    "load",
    "save",
    "write_tokenizer",
]
