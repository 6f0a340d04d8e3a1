"""The device mesh, and one table of which parameter dimension lies along which of its axes.

Plain data parallelism (what `jax.pmap` did) is the mesh (n, 1, 1): everything replicated but the batch.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Parameter path -> PartitionSpec, first match wins. Kernels are [in, out], the embedding [V, D].
TABLE: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embed/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"attention/[qkv]/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"mlp/(up|gate)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(attention/out|mlp/down)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"head/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(attention/[qkv]|mlp/(up|gate))/bias$", PartitionSpec("tensor")),
)
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(data: int, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over the first data * fsdp * tensor devices. Explicit axes, jax's default, would break per-row gathers."""
    count = data * fsdp * tensor
    available = jax.devices()
    if count > len(available):
        raise ValueError(f"the mesh ({data}, {fsdp}, {tensor}) needs {count} devices; there are {len(available)}")
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=available[:count])


def shard(tree: Any, mesh: Mesh) -> Any:
    """The tree on the mesh: parameters (and optimiser moments, which share their paths) by the table."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: jax.device_put(leaf, _placed(path, leaf, mesh)), tree)


def shard_rows(tree: Any, mesh: Mesh) -> Any:
    """This process' rows of arrays whose rows lie along the data and fsdp axes."""
    placed = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(placed, np.asarray(rows)), tree)


def _placed(path, leaf, mesh: Mesh) -> NamedSharding:
    name = "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
    spec = next((spec for pattern, spec in TABLE if re.search(pattern, name)), PartitionSpec())
    if np.ndim(leaf) != len(spec):
        return NamedSharding(mesh, PartitionSpec())
    # A dimension its axis does not divide stays whole.
    fits = [axis if size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, np.shape(leaf), strict=True)]
    return NamedSharding(mesh, PartitionSpec(*fits))
