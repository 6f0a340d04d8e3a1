"""Heads that guess a block of tokens in one pass, and go on block by block: Falcon's kind, semi-autoregressive.

Entry t of such a head is made of the target's hidden state at position t, the token at t + 1, and what a memory keeps
of the entries before it. A block of k entries guesses k tokens: each of them sees all of the block, so that the first
guesses what follows the block's last token, and the last what stands k - 1 places further on. Blocks end anywhere: in
training every entry is a block's last, as in decoding, where the last entry is that of the last committed token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.attention import positions_within
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.heads.parts import layer, lstm
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.texts import following
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache, write_at


@dataclass(frozen=True, kw_only=True)
class Coupled(Kind):
    """A memory of `memories` layers and a decoder layer, in blocks of `block`, run over `steps` blocks in training.

    Blocks after the first are made of the head's own outputs and the text's tokens. What a memory gives lies between -1
    and 1, wherever hidden states lie; with `linear` what it reads passes beside it too, by EAGLE's map [ours].
    """

    block: int = 2
    steps: int = 1
    memories: int = 2
    linear: bool = False  # a linear map beside the memory

    def __post_init__(self) -> None:
        check_knobs(self, counts=("block", "steps", "memories"))
        layer.layer_config(self)  # which refuses sizes that it cannot have

    @property
    def layer(self) -> DecoderConfig:
        return layer.layer_config(self)

    @property
    def terms(self) -> tuple[Term, ...]:
        """All guesses weigh the same, and one in all."""
        count = self.block * self.steps
        return tuple(Term(1 + i, 1 / count) for i in range(count))

    def remembered(self, params: Any, embedded: Array, hidden: Array, state_BX: Array, fresh_BT=None) -> Array:
        """The memory's states [B, T, X] after each entry of embedded tokens and hidden states [B, T, D]."""
        joint_BTW = jnp.concatenate([embedded.astype(hidden.dtype), hidden], axis=-1)
        states_BTX = lstm.run(params["memory"], joint_BTW, state_BX[:, : self._kept], fresh_BT)
        if not self.linear:
            return states_BTX
        told_BTD = lstm.given(states_BTX, self.hidden_size, self.memories) + joint_BTW @ params["fc"]["kernel"]
        return jnp.concatenate([states_BTX, told_BTD], axis=-1)

    def told(self, states: Array) -> Array:
        """[..., D]: what the decoder layer reads, of the memory's states."""
        if self.linear:
            return states[..., self._kept :]
        return lstm.given(states, self.hidden_size, self.memories)

    @property
    def state_size(self) -> int:
        return self._kept + self.linear * self.hidden_size

    @property
    def _kept(self) -> int:
        return lstm.state_size(self.hidden_size, self.memories)

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        params, (rows, length) = head.params, tokens_BT.shape
        run = layer.ByBlocks(self.layer, params["layer"], segments_BT, self.block, rematerialise=self.rematerialise)

        def embedded(shift: int) -> Array:
            return jax.lax.stop_gradient(target.embedded(following(tokens_BT, shift)))

        fresh_BT = None if segments_BT is None else positions_within(segments_BT) == 0
        nothing_BX = jnp.zeros((rows, self.state_size), features_BTF.dtype)
        states_BTX = self.remembered(params, embedded(1), features_BTF, nothing_BX, fresh_BT)
        made = list(run.first(self.told(states_BTX)))
        for step in range(1, self.steps):
            after = 2 + (step - 1) * self.block
            own = [jnp.stack([embedded(after + j) for j in range(self.block)], axis=2)]
            own.append(jnp.stack(made[-self.block :], axis=2))
            embedded_XkD, made_XkD = (x.reshape(rows * length, self.block, -1) for x in own)
            states_XkX = self.remembered(params, embedded_XkD, made_XkD, states_BTX.reshape(rows * length, -1))
            told_BTkD = self.told(states_XkX).reshape(rows, length, self.block, -1)
            states_BTX = states_XkX[:, -1].reshape(rows, length, -1)
            made += run.on([told_BTkD[:, :, j] for j in range(self.block)])
        return tuple(made)

    def outward(self, params, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)

    def on_target(self, head: Head, target: CausalLM) -> CoupledOnTarget:
        return CoupledOnTarget(head, target.ends())


@partial(jax.tree_util.register_dataclass, data_fields=["entries", "states_B1SX"], meta_fields=[])
@dataclass(frozen=True)
class Remembering:
    """A cache of a layer's entries, and the memory's state after each of them."""

    entries: KVCache
    states_B1SX: Array

    @property
    def lengths_B(self) -> Array:
        return self.entries.lengths_B

    @property
    def slots(self) -> int:
        return self.entries.slots

    def roll_back(self, lengths_B: Array) -> Remembering:
        return replace(self, entries=self.entries.roll_back(lengths_B))

    def states_at(self, slots_BN: Array) -> Array:
        """[B, N, X]; nothing is remembered where a slot is below 0."""
        states_BNX = jnp.take_along_axis(self.states_B1SX[:, 0], jnp.maximum(slots_BN, 0)[..., None], axis=1)
        return jnp.where(slots_BN[..., None] < 0, 0, states_BNX)


class CoupledOnTarget(WithTarget):
    """A head that guesses in blocks, beside the target whose embeddings and output matrix it shares, for decoding."""

    @property
    def block(self) -> int:
        return self.head.config.block

    def read(
        self, hidden_BPTD: Array, tokens_BPT: Array, cache: Remembering, *, above_BP: Array, positions_BPT: Array
    ) -> Remembering:
        """The cache P T entries longer: P paths, each going on from the entry in slot `above_BP` (below 0: none).

        Column t has a hidden state and the token after it; positions are those of the hidden states.
        """
        config, params = self.head.config, self.head.params
        rows, paths, count = tokens_BPT.shape
        embedded_BPTD = self.target.embedded(tokens_BPT.reshape(rows, -1)).reshape(hidden_BPTD.shape)
        flat = (x.reshape(rows * paths, count, -1) for x in (embedded_BPTD, hidden_BPTD))
        begun_BPX = cache.states_at(above_BP)
        states = config.remembered(params, *flat, begun_BPX.reshape(rows * paths, -1))
        states_BNX = states.reshape(rows, paths * count, -1)
        told_BND, start_B = config.told(states_BNX), jnp.asarray(cache.lengths_B)
        where = (told_BND, told_BND, cache.entries, positions_BPT.reshape(rows, -1))
        # Of what it makes only the entries stay: who guesses is asked apart.
        _, entries = layer.read(config.layer, params["layer"], *where)
        return Remembering(entries, write_at(cache.states_B1SX, states_BNX[:, :, None], start_B))

    def guess(self, cache: Remembering, slots_BN: Array, *, positions_BN: Array, mask_BNS: Array) -> Array:
        """[B, N, D] for `unembed`, of the entries in these slots, each of which sees what its mask shows."""
        config, params = self.head.config, self.head.params
        told_BND = config.told(cache.states_at(slots_BN))
        return layer.ask(config.layer, params["layer"], told_BND, told_BND, cache.entries, positions_BN, mask_BNS)

    def init_cache(self, batch_size: int, slots: int) -> Remembering:
        config, dtype = self.head.config, self.head.dtype
        entries = layer.empty_cache(config.layer, batch_size, slots, dtype)
        return Remembering(entries, jnp.zeros((batch_size, 1, slots, config.state_size), dtype))
