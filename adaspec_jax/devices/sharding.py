"""The device mesh, and one table of which parameter dimension lies along which of its axes.

Plain data parallelism (what `jax.pmap` did) is the mesh (n, 1, 1): everything replicated but the batch. Rows of a batch
lie along "data" and "fsdp" together; parameters and moments are cut along "fsdp" (gathered when a layer needs them) and
"tensor" (each device computes with its part).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# End of a parameter's path, in whole names -> PartitionSpec; first match wins. Kernels are [in, out], the embedding
# [V, D], learned positions [positions, D]. Layers stacked for a scan have their number first, which is never cut.
Table = tuple[tuple[str, PartitionSpec], ...]
TABLE: Table = (
    (r"embed/embedding", PartitionSpec("tensor", "fsdp")),
    (r"position_embed/embedding", PartitionSpec(None, "fsdp")),
    (r"attention/[qkv]/kernel", PartitionSpec("fsdp", "tensor")),
    (r"mlp/(up|gate)/kernel", PartitionSpec("fsdp", "tensor")),
    (r"(attention/out|mlp/down)/kernel", PartitionSpec("tensor", "fsdp")),
    (r"head/kernel", PartitionSpec("fsdp", "tensor")),
    (r"router/kernel", PartitionSpec("fsdp")),
    (r"experts/(up|gate)", PartitionSpec(None, "fsdp", "tensor")),  # inside every expert: `models/experts.py` says why
    (r"experts/down", PartitionSpec(None, "tensor", "fsdp")),
    (r"(attention/[qkv]|mlp/(up|gate))/bias", PartitionSpec("tensor")),
    (r"lora_a", PartitionSpec("fsdp")),
    (r"lora_b", PartitionSpec(None, "fsdp")),
)
REPLICATED: Table = ()  # every device holds all of it: the fastest for a small draft beside a target that must be cut
ROWS = ("data", "fsdp")
BATCH = PartitionSpec(ROWS)


def make_mesh(data: int, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the first data * fsdp * tensor devices. Explicit axes, jax's default, would break per-row gathers."""
    count = data * fsdp * tensor
    available = jax.devices() if devices is None else devices
    if count > len(available):
        raise ValueError(f"the mesh ({data}, {fsdp}, {tensor}) needs {count} devices; there are {len(available)}")
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=available[:count])


def shard(tree: Any, mesh: Mesh, table: Table = TABLE) -> Any:
    """The tree on the mesh: parameters (and optimiser moments, which share their paths) by the table.

    Every process gives the same whole values, and each places what its own devices hold.
    """
    return jax.tree.map(_put, tree, placements(tree, mesh, table))


def placements(tree: Any, mesh: Mesh, table: Table = TABLE) -> Any:
    """The sharding of every leaf of a tree of arrays or `jax.ShapeDtypeStruct`s."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _placement(path, leaf.shape, mesh, table), tree)


def shard_rows(tree: Any, mesh: Mesh) -> Any:
    """This process' rows of arrays whose rows lie along the data and fsdp axes."""
    placed = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(placed, np.asarray(rows)), tree)


def in_words(mesh: Mesh) -> str:
    return ", ".join(f"{axis} {count}" for axis, count in mesh.shape.items())


def over(mesh: Mesh) -> contextlib.AbstractContextManager:
    """Where `constrain` knows this mesh. Whatever is made in it lies on all its devices, so models are made outside."""
    return jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext()


def on_host() -> contextlib.AbstractContextManager:
    """Where new arrays lie in the host's memory: a model as it is read may be too large for one device."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names accelerators alone
        return contextlib.nullcontext()


def row_share(mesh: Mesh) -> tuple[int, int]:
    """(i, n): of the n equal runs that a batch's rows fall into, this process holds the i-th.

    Processes that share rows, because their devices differ along "tensor" alone, hold the same run. ValueError where
    a process' rows are no run.
    """
    groups = mesh.shape["data"] * mesh.shape["fsdp"]
    devices = mesh.devices.reshape(groups, -1)
    mine = [n for n in range(groups) if any(device.process_index == jax.process_index() for device in devices[n])]
    if not mine or groups % len(mine) or mine[0] % len(mine) or mine != list(range(mine[0], mine[0] + len(mine))):
        raise ValueError(f"the mesh gives process {jax.process_index()} the row groups {mine} of {groups}")
    return mine[0] // len(mine), groups // len(mine)


def my_rows(tree: Any, mesh: Mesh) -> Any:
    """This process' rows of arrays that hold those of all processes."""
    index, count = row_share(mesh)

    def rows(array: Any) -> Any:
        share = array.shape[0] // count
        return array[index * share : (index + 1) * share]

    return jax.tree.map(rows, tree)


def constrain(array: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """The array with its dimensions laid along these axes of the mesh in force (`jax.set_mesh`), where they divide.

    Says what XLA would otherwise have to guess from the parameters' layout; without a mesh it says nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or array.ndim != len(axes):
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*_dividing(array.shape, axes, mesh)))


def over_shards(function: Callable[..., Array], *inputs: tuple[Array, tuple], summed: str) -> Array:
    """`function` of arrays, each given with its axes of the mesh in force: of every device's own part, by itself.

    What it gives lies as its first input does. Parts along the axis `summed`, where any input is cut along it, are
    added. An axis that does not divide its dimension is left out; without a mesh it is the function of whole arrays.
    """
    arrays, mesh = [array for array, _ in inputs], jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    specs = [PartitionSpec(*_dividing(array.shape, axes, mesh)) for array, axes in inputs]
    adds = any(summed in spec for spec in specs)

    def part(*arrays: Array) -> Array:
        made = function(*arrays)
        return jax.lax.psum(made, summed) if adds else made

    return jax.shard_map(part, mesh=mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)(*arrays)


def _dividing(shape: Sequence[int], axes: Sequence[Any], mesh: Any) -> list[Any]:
    """The axes, without those that do not divide their dimension: it stays whole."""
    parts = [math.prod(mesh.shape[name] for name in ([axis] if isinstance(axis, str) else axis or ())) for axis in axes]
    return [axis if size % count == 0 else None for size, axis, count in zip(shape, axes, parts, strict=True)]


def _placement(path, shape: Sequence[int], mesh: Mesh, table: Table) -> NamedSharding:
    name = "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
    # Whole names: "embed/embedding" is not the end of "position_embed/embedding".
    axes = tuple(next((spec for pattern, spec in table if re.search(f"(^|/)({pattern})$", name)), ()))
    if re.search("(^|/)layers/", name):
        axes = (None, *axes)
    if len(shape) < len(axes):  # a moment that is factored, or a scalar in its place
        return NamedSharding(mesh, PartitionSpec())
    axes += (None,) * (len(shape) - len(axes))
    return NamedSharding(mesh, PartitionSpec(*_dividing(shape, axes, mesh)))


def _put(leaf: Any, placed: NamedSharding) -> Array:
    if isinstance(leaf, Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, placed)  # global already: moved between devices
    if placed.is_fully_addressable:
        return jax.device_put(leaf, placed)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), placed), impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, placed, whole.__getitem__)
