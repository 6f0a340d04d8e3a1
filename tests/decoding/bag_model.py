"""A four-line language model that uses cache, positions and mask as a transformer does, and is cheap to enumerate."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BagCache:
    tokens_BS: jax.Array
    positions_BS: jax.Array
    lengths_B: jax.Array

    def roll_back(self, lengths_B):
        return dataclasses.replace(self, lengths_B=lengths_B)

    def keep_path(self, start_B, rows_BM):
        def move(array_BS):
            moved = jnp.take_along_axis(array_BS, start_B[:, None] + rows_BM, axis=1)
            slots = start_B[:, None] + jnp.arange(rows_BM.shape[1])[None]
            return array_BS.at[jnp.arange(len(start_B))[:, None], slots].set(moved)

        return BagCache(move(self.tokens_BS), move(self.positions_BS), self.lengths_B)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BagModel:
    """logits_t = sum over visible tokens s of table[token_s] * 0.5 ** (position_t - position_s)."""

    table_VV: jax.Array

    @classmethod
    def random(cls, seed, vocab=4, scale=1.0):
        return cls(jnp.asarray(np.random.default_rng(seed).normal(size=(vocab, vocab)) * scale, jnp.float32))

    def init_cache(self, batch_size, slots):
        zeros = jnp.zeros((batch_size, slots), jnp.int32)
        return BagCache(zeros, zeros, jnp.zeros((batch_size,), jnp.int32))

    def features(self, tokens_BT, cache=None, *, positions_BT=None, mask_BTS=None):
        batch, time = tokens_BT.shape
        cache = self.init_cache(batch, time) if cache is None else cache
        slot_BT = cache.lengths_B[:, None] + jnp.arange(time)[None]
        positions_BT = slot_BT if positions_BT is None else positions_BT
        row = jnp.arange(batch)[:, None]
        tokens_BS = cache.tokens_BS.at[row, slot_BT].set(tokens_BT, mode="drop")
        positions_BS = cache.positions_BS.at[row, slot_BT].set(positions_BT, mode="drop")
        if mask_BTS is None:
            mask_BTS = jnp.arange(tokens_BS.shape[1])[None, None] <= slot_BT[:, :, None]
        distance_BTS = positions_BT[:, :, None] - positions_BS[:, None, :]
        weight_BTS = jnp.where(mask_BTS, 0.5 ** distance_BTS.astype(jnp.float32), 0.0)
        hidden_BTV = jnp.einsum("bts,bsv->btv", weight_BTS, jax.nn.one_hot(tokens_BS, self.table_VV.shape[0]))
        return hidden_BTV, BagCache(tokens_BS, positions_BS, cache.lengths_B + time)

    def unembed(self, hidden_BTV):
        return hidden_BTV @ self.table_VV

    def __call__(self, tokens_BT, cache=None, *, positions_BT=None, mask_BTS=None):
        hidden, cache = self.features(tokens_BT, cache, positions_BT=positions_BT, mask_BTS=mask_BTS)
        return self.unembed(hidden), cache


def next_logits(model, tokens):
    """The logits after a plain Python list of tokens, in NumPy."""
    table = np.asarray(model.table_VV, np.float64)
    return sum(table[token] * 0.5 ** (len(tokens) - 1 - i) for i, token in enumerate(tokens))
