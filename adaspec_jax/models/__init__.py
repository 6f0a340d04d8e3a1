"""Models: Hugging Face weights as `CausalLM` values, one decoder for every family."""

from adaspec_jax.models.causal_lm import CausalLM, build
from adaspec_jax.models.cutting import cut, cut_from
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import config_from_hf
from adaspec_jax.models.files.directories import asked_by, asked_of, described, find_directory, load, save
from adaspec_jax.models.files.tokenizer_files import write_tokenizer
from adaspec_jax.models.heads.parts.files import load_head, save_head, trained_on
from adaspec_jax.models.kv_cache import KVCache

__all__ = [
    "CausalLM",
    "DecoderConfig",
    "KVCache",
    "asked_by",
    "asked_of",
    "build",
    "config_from_hf",
    "cut",
    "cut_from",
    "described",
    "find_directory",
    "load",
    "load_head",
    "save",
    "save_head",
    "trained_on",
    "write_tokenizer",
]
