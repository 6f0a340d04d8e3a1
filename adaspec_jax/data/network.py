"""Is a host there? Asked once, before libraries that would retry for minutes."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any


def reachable(url: str, *, timeout: float = 10) -> bool:
    """True if the host answers at all within `timeout` seconds (through the proxy the environment names, if any)."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True  # it answered, if only to refuse
    except (OSError, ValueError):
        return False
    return True


def hub_reachable() -> bool:
    """True if the Hugging Face hub (or the mirror HF_ENDPOINT names) answers, and HF_HUB_OFFLINE does not forbid it."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    from huggingface_hub import constants

    return reachable(constants.ENDPOINT)


@contextlib.contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """Without a network, `datasets` looks only at what it fetched before, as under HF_HUB_OFFLINE=1."""
    import datasets
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (datasets.config, constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        if not hub_reachable():
            for module in modules:
                module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
