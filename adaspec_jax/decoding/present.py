"""Which tokens stand in a row's text, for a repetition penalty: at the text's end, and at every node of a proposal."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array


def present(tokens_BS: Array, lengths_B: Array, vocab_size: int) -> Array:
    """bool_BV: the tokens among each row's first `lengths_b`."""
    at_BS = jnp.where(jnp.arange(tokens_BS.shape[1])[None] < lengths_B[:, None], tokens_BS, vocab_size)
    return _marked(jnp.zeros((len(lengths_B), vocab_size), bool), at_BS)


def with_token(present_BV: Array | None, token_B: Array) -> Array | None:
    """After one more token per row; None stays None."""
    return None if present_BV is None else _marked(present_BV, token_B[..., None])


def present_in_tree(present_BV: Array, tokens_BN: Array, ancestors_BNN: Array | np.ndarray) -> Array:
    """bool_BMV: what stands in the text at the root, and at each node of a `Tree` with the node and those above it.

    `ancestors_BNN` may have fewer rows, of those nodes alone that are asked about.
    """
    batch, vocab_size = present_BV.shape
    above_BMN = jnp.pad(jnp.asarray(ancestors_BNN), ((0, 0), (1, 0), (0, 0)))
    at_BMN = jnp.where(above_BMN, tokens_BN[:, None], vocab_size)
    return _marked(jnp.broadcast_to(present_BV[:, None], (batch, above_BMN.shape[1], vocab_size)), at_BMN)


def _marked(present: Array, at: Array) -> Array:
    """True at the tokens `at` [..., X] of each row of `present` [..., V]; those past the vocabulary are no token's."""
    rows = tuple(index[..., None] for index in np.indices(present.shape[:-1], sparse=True))
    return present.at[(*rows, at)].set(True, mode="drop")
