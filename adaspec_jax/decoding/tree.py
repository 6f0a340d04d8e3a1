"""The shape of a proposal, and what its nodes may attend to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.types import Proposal


class Tree(NamedTuple):
    """The shape of a proposal: `ancestors_BNN[b, n, m]` says that m is n or above it; depth counts from 1.

    NumPy, with a batch of 1, where the shape is known beforehand.
    """

    ancestors_BNN: Array | np.ndarray
    depth_BN: Array | np.ndarray

    @classmethod
    def of(cls, proposal: Proposal) -> Tree:
        nodes, parents_BN = proposal.tokens_BN.shape[1], proposal.parents_BN
        if parents_BN is None:
            return cls._known(np.arange(-1, nodes - 1)[None])
        if isinstance(parents_BN, np.ndarray):
            return cls._known(np.atleast_2d(parents_BN))
        own_NN = jnp.eye(nodes, dtype=bool)

        def extend(ancestors_BNN: Array, node: Array) -> tuple[Array, None]:
            parent_B = jnp.take(parents_BN, node, axis=1)
            inherited_BN = jnp.take_along_axis(ancestors_BNN, jnp.maximum(parent_B, 0)[:, None, None], axis=1)[:, 0]
            row_BN = (inherited_BN & (parent_B >= 0)[:, None]) | own_NN[node][None]
            return ancestors_BNN.at[:, node].set(row_BN), None

        empty = jnp.zeros((*parents_BN.shape, nodes), bool)
        ancestors_BNN, _ = jax.lax.scan(extend, empty, jnp.arange(nodes))
        return cls(ancestors_BNN, jnp.sum(ancestors_BNN, axis=-1, dtype=jnp.int32))

    @classmethod
    def _known(cls, parents_BN: np.ndarray) -> Tree:
        batch, nodes = parents_BN.shape
        ancestors_BNN = np.zeros((batch, nodes, nodes), bool)
        for b in range(batch):
            for node, parent in enumerate(parents_BN[b]):
                ancestors_BNN[b, node] = ancestors_BNN[b, parent] if parent >= 0 else False
                ancestors_BNN[b, node, node] = True
        return cls(ancestors_BNN, ancestors_BNN.sum(axis=-1, dtype=np.int32))

    def attention_mask(self, start_B: Array, slots: int) -> Array:
        """`mask_BMS`: root and nodes, at slots start.., see what lies before, the root, ancestors, themselves."""
        nodes = self.ancestors_BNN.shape[-1]
        pad = np.pad if isinstance(self.ancestors_BNN, np.ndarray) else jnp.pad
        sees_BMM = pad(self.ancestors_BNN, ((0, 0), (1, 0), (1, 0)))
        sees_BMM = jnp.asarray(sees_BMM) | (jnp.arange(nodes + 1) == 0)[None, None, :]
        row_BS = jnp.arange(slots)[None, :] - start_B[:, None]
        inside_BS = (row_BS >= 0) & (row_BS <= nodes)
        shape = (len(start_B), nodes + 1, slots)
        index_BMS = jnp.broadcast_to(jnp.clip(row_BS, 0, nodes)[:, None, :], shape)
        tree_BMS = jnp.take_along_axis(jnp.broadcast_to(sees_BMM, (*shape[:2], nodes + 1)), index_BMS, axis=2)
        return (row_BS < 0)[:, None, :] | (inside_BS[:, None, :] & tree_BMS)
