"""Parameters as decoding reads them fastest on CPUs, where a product of few rows takes as long as reading its matrix.

Linear layers that read the same input are one: `attention/qkv` and, in gated MLPs, `mlp/gate_up`. Those that multiply
in bfloat16 hold a `weight` [out, in], as PyTorch names it, in place of a `kernel` [in, out]; in float32 that form is
slower from two rows on (`benchmarks/layouts.py`). Of a mixture of experts only the type changes, of the experts alone.
What training, files and sharding know is the loaded form; this one is made of it and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

WEIGHT = "weight"
QKV, GATE_UP = ("q", "k", "v"), ("gate", "up")


def laid_out(params: Mapping[str, Any], *, tied: bool, dtype: Any = None) -> dict[str, Any]:
    """The parameters of an unstacked model, laid out; its kernels in `dtype` (None: their own), all else as it was.

    Layers with a low-rank update stay as they are. Of what is laid out already only the type changes.
    """
    new = {name: _layer(tree, dtype) if name.startswith("layers_") else tree for name, tree in params.items()}
    if "head" in params:
        new["head"] = _linear(params["head"], dtype)
    elif tied and dtype is not None and (embedding_VD := params["embed"]["embedding"]).dtype != dtype:
        new["head"] = {WEIGHT: jnp.asarray(embedding_VD, dtype)}  # an embedding is [out, in] already
    return new


def is_laid_out(params: Mapping[str, Any]) -> bool:
    names = {key.key for path, _ in jax.tree_util.tree_leaves_with_path(params) for key in path}
    return bool(names & {WEIGHT, "qkv", "gate_up"})


def product(rows: Array, weight_OI: Array) -> Array:
    """Float32 [..., O] of rows [..., I], multiplied in the weight's type and summed in float32."""
    flat_RI = rows.reshape(-1, rows.shape[-1]).astype(weight_OI.dtype)
    count = len(flat_RI)
    if count == 1 and weight_OI.dtype == jnp.bfloat16:
        # XLA's product of one bfloat16 row is a slow loop on CPUs (45 ms where two rows take 4); of two it is not.
        flat_RI = jnp.concatenate([flat_RI, flat_RI])
    by_last = (((1,), (1,)), ((), ()))
    flat_RO = jax.lax.dot_general(flat_RI, weight_OI, by_last, preferred_element_type=jnp.float32)[:count]
    return flat_RO.reshape(*rows.shape[:-1], -1)


def _layer(layer: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    attention = _united(layer["attention"], QKV, "qkv")
    mlp = _united(layer["mlp"], GATE_UP, "gate_up")
    if "experts" in mlp and dtype is not None:
        mlp["experts"] = {name: jnp.asarray(stack, dtype) for name, stack in mlp["experts"].items()}
    each = lambda tree: {  # noqa: E731
        k: _linear(v, dtype) if _is_linear(v) and k != "router" else v for k, v in tree.items()
    }
    return {**layer, "attention": each(attention), "mlp": each(mlp)}


def _united(tree: Mapping[str, Any], names: tuple[str, ...], name: str) -> dict[str, Any]:
    """The tree with these plain linear layers as one, where it has them all."""
    parts = [tree.get(part, {}) for part in names]
    if any("kernel" not in part or "lora_a" in part for part in parts):
        return dict(tree)
    one = {leaf: jnp.concatenate([part[leaf] for part in parts], axis=-1) for leaf in parts[0]}
    return {key: value for key, value in tree.items() if key not in names} | {name: one}


def _is_linear(tree: Any) -> bool:
    return ("kernel" in tree or WEIGHT in tree) and "lora_a" not in tree


def _linear(linear: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    name = WEIGHT if WEIGHT in linear else "kernel"
    matrix = linear[name] if dtype is None else jnp.asarray(linear[name], dtype)
    rest = {leaf: value for leaf, value in linear.items() if leaf != name}
    if name == "kernel" and matrix.dtype == jnp.bfloat16:
        return rest | {WEIGHT: jnp.asarray(matrix).T}
    return rest | {name: matrix}
