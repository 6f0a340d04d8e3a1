"""What it costs that a run survives: the share of its time that goes into checksums and into waiting for the disk.

    python benchmarks/safety.py --config configs/quickstart.py --json benchmarks/results/safety.json

Runs a whole training with every such function timed, each once where one calls another, and nothing else changed: no
second run is compared, whose noise would be larger than what is looked for.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import threading
import time
import zlib
from collections import defaultdict
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
from interleave import machine  # noqa: E402

_INSIDE = threading.local()


def timed(seconds: dict[str, float], kind: str, function):
    """The function, its time added to `seconds[kind]` unless another timed one is running in this thread."""

    @functools.wraps(function)
    def called(*args, **kwargs):
        if getattr(_INSIDE, "now", False):
            return function(*args, **kwargs)
        _INSIDE.now, began = True, time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _INSIDE.now = False
            seconds[kind] += time.perf_counter() - began

    return called


def watch() -> dict[str, float]:
    """Times of what is called from now on, by kind; of orbax' threads too."""
    from adaspec_jax import files
    from adaspec_jax.training import checkpoints

    seconds: dict[str, float] = defaultdict(float)
    for place, name, kind in (
        (os, "fsync", "waiting for the disk"),
        (files, "settle", "waiting for the disk"),
        (files, "settle_below", "waiting for the disk"),
        (files, "sha256", "checksums of files"),
        (checkpoints, "checksums", "checksums of checkpoints"),
        (zlib, "crc32", "checksums of tensors and lines"),
    ):
        setattr(place, name, timed(seconds, kind, getattr(place, name)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--json", type=Path)
    asked, overrides = parser.parse_known_args()
    from adaspec_jax.errors import exit_with_one_line

    seconds = watch()
    train = import_module("adaspec_jax.train")
    with tempfile.TemporaryDirectory() as place:
        sys.argv = ["train", "--config", asked.config, "--workdir", place, *overrides]
        began = time.perf_counter()
        exit_with_one_line(train.main)
        whole = time.perf_counter() - began
    shares = {kind: taken / whole for kind, taken in sorted(seconds.items())}
    for kind, share in shares.items():
        print(f"{kind:32} {seconds[kind]:8.2f} s  {100 * share:6.2f} %")
    print(f"{'together':32} {sum(seconds.values()):8.2f} s  {100 * sum(shares.values()):6.2f} % of {whole:.0f} s")
    if asked.json:
        result = {"config": [asked.config, *overrides], "machine": machine(), "seconds": whole, "shares": shares}
        asked.json.write_text(json.dumps(result | {"together": sum(shares.values())}, indent=2) + "\n")


if __name__ == "__main__":
    main()
