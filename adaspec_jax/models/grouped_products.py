"""Rows, each times the matrix of its own group: what a mixture of experts computes, without dropping a row.

Two forms give the same numbers up to rounding. "ragged" is `jax.lax.ragged_dot`, of which XLA for TPUs makes a kernel
that computes no product twice; elsewhere jax 0.10.2 writes it out as one product with every group's matrix. "blocks"
walks over blocks of rows of one group each, and reads the matrices of those groups alone: on CPUs at least ten times
faster (`benchmarks/experts.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Form = Literal["blocks", "ragged"]
FORMS: dict[str, Form] = {"tpu": "ragged"}  # by backend
FORM_ELSEWHERE: Form = "blocks"
_LARGEST_BLOCK = 128  # rows


def form_of(backend: str | None = None) -> Form:
    """What suits a backend (default: the one here)."""
    return FORMS.get(backend or jax.default_backend(), FORM_ELSEWHERE)


def map_groups(
    apply: Callable[[Callable[[Array, Array], Array], Array], Array], rows_MD: Array, group_M: Array, *, groups: int,
    form: Form,
) -> Array:  # fmt: skip
    """`apply(times, rows)` of every row in its own group, in the order of the rows.

    `apply` gets the rows in another order and shape, [..., D], and gives as many, [..., X]. What it may do with them is
    work on each row by itself and `times(rows, matrices)`: each row times its group's of `matrices` [groups, I, O].
    """
    order_M = jnp.argsort(group_M, stable=True)
    place_M = jnp.zeros_like(order_M).at[order_M].set(jnp.arange(len(order_M)), unique_indices=True)
    sizes_E = jnp.bincount(group_M, length=groups).astype(jnp.int32)
    if form == "ragged":
        return apply(lambda rows, matrices: ragged_products(rows, matrices, sizes_E), rows_MD[order_M])[place_M]
    blocks = _Blocks.of(len(order_M), groups)
    slot_M, group_N = blocks.lay(sizes_E, group_M[order_M])
    row_S = jnp.full((blocks.count * blocks.rows,), len(rows_MD)).at[slot_M].set(order_M, unique_indices=True)
    rows_NCD = rows_MD.at[row_S].get(mode="fill", fill_value=0).reshape(blocks.count, blocks.rows, -1)
    made_NCX = apply(lambda rows, matrices: block_products(rows, matrices, group_N), rows_NCD)
    return made_NCX.reshape(blocks.count * blocks.rows, -1)[slot_M[place_M]]


@jax.custom_vjp
def ragged_products(rows_MI: Array, matrices_EIO: Array, sizes_E: Array) -> Array:
    """[M, O] in the rows' type: rows in the order of their groups, of so many rows each, by their groups' matrices."""
    rows = rows_MI.astype(matrices_EIO.dtype)
    return jax.lax.ragged_dot(rows, matrices_EIO, sizes_E, preferred_element_type=rows_MI.dtype)


class _Blocks:
    """How many blocks, of how many rows, hold rows of groups whatever their sizes are."""

    def __init__(self, count: int, rows: int) -> None:
        self.count, self.rows = count, rows

    @classmethod
    def of(cls, rows: int, groups: int) -> _Blocks:
        """Twice as many rows as a group has on average: larger waste products, smaller read matrices again.

        Never one: XLA's product of one bfloat16 row is a slow loop on CPUs.
        """
        size = min(max(2 ** int(np.ceil(np.log2(2 * rows / groups))), 2), _LARGEST_BLOCK)
        return cls(min(rows // size + min(groups, rows), rows), size)

    def lay(self, sizes_E: Array, sorted_M: Array) -> tuple[Array, Array]:
        """Of rows in the order of their groups the slot in all blocks, and of each block the group; if empty, no group.

        Every group begins in a block of its own.
        """
        blocks_E = -(-sizes_E // self.rows)
        ends_E = jnp.cumsum(blocks_E)
        first_E, begins_E = ends_E - blocks_E, jnp.cumsum(sizes_E) - sizes_E
        slot_M = first_E[sorted_M] * self.rows + jnp.arange(len(sorted_M)) - begins_E[sorted_M]
        group_N = jnp.searchsorted(ends_E, jnp.arange(self.count), side="right")
        return slot_M, group_N.astype(jnp.int32)


@jax.custom_vjp
def block_products(rows_NCI: Array, matrices_EIO: Array, group_N: Array) -> Array:
    """[N, C, O] in the rows' type: each block of rows times its group's matrix; zeros for groups that there are not."""
    return _block_products(rows_NCI, matrices_EIO, group_N, turned=False)


def _block_products(rows_NCI: Array, matrices_EIO: Array, group_N: Array, *, turned: bool) -> Array:
    contracted = (((1,), (1 if turned else 0,)), ((), ()))

    def product(rows_CI: Array, group: Array) -> Array:
        rows = rows_CI.astype(matrices_EIO.dtype)
        made = jax.lax.dot_general(rows, matrices_EIO[group], contracted, preferred_element_type=jnp.float32)
        return made.astype(rows_CI.dtype)

    shape = (rows_NCI.shape[1], matrices_EIO.shape[1 if turned else 2])
    return _walk(product, rows_NCI, group=group_N, groups=len(matrices_EIO), nothing=jnp.zeros(shape, rows_NCI.dtype))


def _walk(compute: Callable[..., Array], *blocks: Array, group: Array, groups: int, nothing: Array) -> Array:
    """`compute` of every block of a group that there is, one after another, and `nothing` for the others."""

    def body(carry: None, block: Any) -> tuple[None, Array]:
        *parts, of = block
        return carry, jax.lax.cond(of < groups, lambda: compute(*parts, of), lambda: nothing)

    return jax.lax.scan(body, None, (*blocks, group))[1]


def _forward(rows_NCI: Array, matrices_EIO: Array, group_N: Array) -> tuple[Array, Any]:
    return block_products(rows_NCI, matrices_EIO, group_N), (rows_NCI, matrices_EIO, group_N)


def _backward(kept: Any, given_NCO: Array) -> tuple[Array, Array, None]:
    """Its own, because that of a loop over `matrices[group]` adds a whole [E, I, O] at each step."""
    rows_NCI, matrices_EIO, group_N = kept
    to_rows_NCI = _block_products(given_NCO, matrices_EIO, group_N, turned=True)
    return to_rows_NCI.astype(rows_NCI.dtype), _to_matrices(rows_NCI, given_NCO, group_N, matrices_EIO), None


def _to_matrices(rows_NCI: Array, given_NCO: Array, group_N: Array, matrices_EIO: Array) -> Array:
    """The gradient of the matrices: each group's sum of its rows' outer products."""
    groups, by_row = len(matrices_EIO), (((0,), (0,)), ((), ()))

    def body(sum_EIO: Array, block: Any) -> tuple[Array, None]:
        rows_CI, given_CO, group = block

        def product() -> Array:
            made = jax.lax.dot_general(rows_CI, given_CO, by_row, preferred_element_type=jnp.float32)
            return made.astype(sum_EIO.dtype)

        nothing = jnp.zeros(sum_EIO.shape[1:], sum_EIO.dtype)
        return sum_EIO.at[group].add(jax.lax.cond(group < groups, product, lambda: nothing), mode="clip"), None

    return jax.lax.scan(body, jnp.zeros_like(matrices_EIO), (rows_NCI, given_NCO, group_N))[0]


block_products.defvjp(_forward, _backward)


def _ragged_forward(rows_MI: Array, matrices_EIO: Array, sizes_E: Array) -> tuple[Array, Any]:
    return ragged_products(rows_MI, matrices_EIO, sizes_E), (rows_MI, matrices_EIO, sizes_E)


def _ragged_backward(kept: Any, given_MO: Array) -> tuple[Array, Array, None]:
    """Its own, because of the matrices' part XLA for TPUs makes a product with every group (libtpu 0.0.42)."""
    rows_MI, matrices_EIO, sizes_E = kept
    to_rows_MI = ragged_products(given_MO, matrices_EIO.swapaxes(1, 2), sizes_E).astype(rows_MI.dtype)
    blocks, count = _Blocks.of(len(rows_MI), len(matrices_EIO)), len(rows_MI)
    group_M = jnp.searchsorted(jnp.cumsum(sizes_E), jnp.arange(count), side="right")
    slot_M, group_N = blocks.lay(sizes_E, group_M)

    def laid(rows_MX: Array) -> Array:
        empty = jnp.zeros((blocks.count * blocks.rows, rows_MX.shape[1]), rows_MX.dtype)
        return empty.at[slot_M].set(rows_MX, unique_indices=True).reshape(blocks.count, blocks.rows, -1)

    return to_rows_MI, _to_matrices(laid(rows_MI), laid(given_MO), group_N, matrices_EIO), None


ragged_products.defvjp(_ragged_forward, _ragged_backward)
