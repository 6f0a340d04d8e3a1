"""Compiled programs beside a run, so that the next session does not compile them again."""

from __future__ import annotations

import zlib
from pathlib import Path

import jax

_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # begins what is packed so


def keep_compiled_programs(directory: Path) -> None:
    """jax keeps them there, unless it was told another place; what a kill or a power cut tore of them is taken away."""
    if jax.config.jax_compilation_cache_dir:
        return
    for entry in directory.glob("*-cache"):
        if _is_torn(entry):  # jax would warn of it at every start, and never write it anew
            entry.unlink(missing_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _is_torn(entry: Path) -> bool:
    content = entry.read_bytes()
    if content.startswith(_ZSTANDARD):
        return _is_torn_zstandard(content)
    try:
        zlib.decompress(content)
    except zlib.error:
        return True
    return False


def _is_torn_zstandard(content: bytes) -> bool:
    try:
        import zstandard  # jax packs with it where it is installed
    except ImportError:
        return False
    try:
        zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError:
        return True
    return False
