"""Checkpoints whose experts are stacked in one tensor, shown as those that have a tensor for each.

transformers 5 holds a layer's experts so, and writes them so where it is asked not to keep the older form, which it
reads as well, and which transformers 4 and servers read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from adaspec_jax.models.files.weights import StoredTensor

_FUSED = re.compile(r"(.+\.mlp\.experts)\.(gate_up_proj|down_proj)")
_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}  # their rows, one after the other


def by_expert(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Each stack [experts, out, in] as the matrices in it, `...experts.3.up_proj.weight`; the rest as it is.

    A stack is read once for as long as its own matrices are asked for one after another.
    """
    made: dict[str, StoredTensor] = {}
    read = functools.lru_cache(maxsize=1)(lambda name: tensors[name].read())
    for name, tensor in tensors.items():
        found = _FUSED.fullmatch(name)
        parts = _PARTS[found[2]] if found else ()
        if found is None or len(tensor.shape) != 3 or tensor.shape[1] % len(parts):
            made[name] = tensor
            continue
        experts, out, inside = tensor.shape
        size = out // len(parts)
        for part, kind in enumerate(parts):
            for expert in range(experts):
                piece = _piece(read, name, expert, slice(part * size, (part + 1) * size))
                made[f"{found[1]}.{expert}.{kind}.weight"] = StoredTensor((size, inside), tensor.kind, piece)
    return made


def _piece(read: Callable[[str], np.ndarray], name: str, expert: int, rows: slice) -> Callable[[], np.ndarray]:
    return lambda: read(name)[expert, rows]
