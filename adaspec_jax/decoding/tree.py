"""The shape of a proposal, and what its nodes may attend to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.types import Proposal


class Tree(NamedTuple):
    """The shape of a proposal: `ancestors_BNN[b, n, m]` says that m is n or above it; depth counts from 1."""

    ancestors_BNN: Array
    depth_BN: Array

    @classmethod
    def of(cls, proposal: Proposal) -> Tree:
        batch, nodes = proposal.tokens_BN.shape
        if proposal.parents_BN is None:
            below = jnp.tril(jnp.ones((nodes, nodes), bool))
            ancestors_BNN = jnp.broadcast_to(below[None], (batch, nodes, nodes))
        else:
            own_NN = jnp.eye(nodes, dtype=bool)

            def extend(ancestors_BNN, node):
                parent_B = jnp.take(proposal.parents_BN, node, axis=1)
                inherited_BN = jnp.take_along_axis(ancestors_BNN, jnp.maximum(parent_B, 0)[:, None, None], axis=1)[:, 0]
                row_BN = (inherited_BN & (parent_B >= 0)[:, None]) | own_NN[node][None]
                return ancestors_BNN.at[:, node].set(row_BN), None

            empty = jnp.zeros((batch, nodes, nodes), bool)
            ancestors_BNN, _ = jax.lax.scan(extend, empty, jnp.arange(nodes))
        return cls(ancestors_BNN, jnp.sum(ancestors_BNN, axis=-1, dtype=jnp.int32))

    def attention_mask(self, start_B: Array, slots: int) -> Array:
        """`mask_BMS`: root and nodes, at slots start.., see what lies before, the root, ancestors, themselves."""
        batch, nodes, _ = self.ancestors_BNN.shape
        sees_BMM = jnp.zeros((batch, nodes + 1, nodes + 1), bool).at[:, :, 0].set(True)
        sees_BMM = sees_BMM.at[:, 1:, 1:].set(self.ancestors_BNN)
        row_BS = jnp.arange(slots)[None, :] - start_B[:, None]
        inside_BS = (row_BS >= 0) & (row_BS <= nodes)
        index_BMS = jnp.broadcast_to(jnp.clip(row_BS, 0, nodes)[:, None, :], (batch, nodes + 1, slots))
        tree_BMS = jnp.take_along_axis(sees_BMM, index_BMS, axis=2)
        return (row_BS < 0)[:, None, :] | (inside_BS[:, None, :] & tree_BMS)
