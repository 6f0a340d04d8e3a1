"""How many pieces of memory this process has mapped: every compiled program holds some, and Linux counts them."""

from __future__ import annotations

import gc
from pathlib import Path

import jax

_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def nearly_full(share: float = 0.6) -> bool:
    """Whether more than this share of what Linux allows is mapped; never where there is no such number.

    At the limit the compiler dies of "Cannot allocate memory", whatever is free.
    """
    try:
        return _MAPS.read_bytes().count(b"\n") > share * int(_LIMIT.read_text())
    except (OSError, ValueError):
        return False


def forget_programs() -> None:
    """Unmaps the compiled programs that nobody holds any more; what is called again is compiled again."""
    jax.clear_caches()
    gc.collect()
