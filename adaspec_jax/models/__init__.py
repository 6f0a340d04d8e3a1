"""Models: Hugging Face weights as `CausalLM` values, one decoder for every family."""

from adaspec_jax.models.causal_lm import CausalLM, build
from adaspec_jax.models.cutting import cut, cut_from
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.families import config_from_hf
from adaspec_jax.models.files.directories import asked_by, asked_of, described, find_directory, load, save
from adaspec_jax.models.files.tokenizer_files import write_tokenizer
from adaspec_jax.models.heads.parts.files import load_head, save_head, trained_on
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.stop_head import StopHead, load_stop_head, save_stop_head
from adaspec_jax.models.vocabulary_rows import with_mask_token

__all__ = [
    "CausalLM",
    "DecoderConfig",
    "KVCache",
    "StopHead",
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
    "load_stop_head",
    "save",
    "save_head",
    "save_stop_head",
    "trained_on",
    "with_mask_token",
    "write_tokenizer",
]
