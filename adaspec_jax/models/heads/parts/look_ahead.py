"""Look-ahead slots: the target itself guesses at trained embeddings that stand after the text; all else is frozen.

The slot i places after a text's last token guesses the token after its own place. Slots see the text and the slots
before them, and no token sees a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.attention import positions_within
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head, Kind, Term
from adaspec_jax.models.heads.parts.with_target import WithTarget
from adaspec_jax.models.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class LookAhead(Kind):
    """`slots` trained embeddings; in training they stand at `cuts` places of every row."""

    runs_target = True

    slots: int = 4
    cuts: int = 16

    def __post_init__(self) -> None:
        check_knobs(self, counts=("slots", "cuts"))

    @property
    def num_layers(self) -> int:
        """Of its own: none, and so no cache either."""
        return 0

    @property
    def guesses(self) -> int:
        return self.slots

    @property
    def terms(self) -> tuple[Term, ...]:
        """All slots weigh the same, and one in all."""
        return tuple(Term(1 + i, 1 / self.slots) for i in range(self.slots))

    def labels_of(self, count: int) -> float:
        return super().labels_of(min(count, self.cuts))

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """The mean of the tokens' embeddings [ours]."""
        del key, counts_V
        embedded_VD = target.embedded(jnp.arange(self.sizes.num_tokens, dtype=jnp.int32))
        mean_D = jnp.mean(embedded_VD, axis=0, dtype=jnp.float32)
        return {"ahead": {"embedding": jnp.broadcast_to(mean_D[None], (self.slots, self.hidden_size)).copy()}}, None

    def nearest(self, head: Head) -> Head:
        """Slots do not see those after them."""
        return Head({"ahead": {"embedding": self.embeddings(head)[:1]}}, replace(self, slots=1), head.tables)

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        """With slots after every token."""
        every_1T = jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]
        made_BCLD = self._made(head, target, tokens_BT, segments_BT, jnp.broadcast_to(every_1T, tokens_BT.shape))
        return tuple(made_BCLD[:, :, i] for i in range(self.slots))

    def guessed_among(self, head, target, tokens_BT, features_BTF, segments_BT, places_BT):
        """With slots after `cuts` of these places; elsewhere there are zeros."""
        if places_BT is None:
            return self.guessed(head, target, tokens_BT, features_BTF, segments_BT)
        # Places first, in order: a row that has fewer takes others beside them, which nobody asks about.
        begins_BC = jnp.argsort(~places_BT, axis=1, stable=True)[:, : self.cuts].astype(jnp.int32)
        made_BCLD = self._made(head, target, tokens_BT, segments_BT, begins_BC)
        rows_B1 = jnp.arange(len(begins_BC))[:, None]
        nothing_BTD = jnp.zeros((*tokens_BT.shape, made_BCLD.shape[-1]), made_BCLD.dtype)
        return tuple(nothing_BTD.at[rows_B1, begins_BC].set(made_BCLD[:, :, i]) for i in range(self.slots))

    def _made(self, head: Head, target: CausalLM, tokens_BT, segments_BT, begins_BC) -> Array:
        """[B, C, L, D]: the target's final hidden states at slots after these places of texts.

        The text is read first, which takes no gradient: what is trained, no token sees.
        """
        (rows, length), count = tokens_BT.shape, begins_BC.shape[1] * self.slots
        place_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (rows, length))
        within_BT = place_BT if segments_BT is None else positions_within(segments_BT)
        begun_BC = jnp.take_along_axis(within_BT, begins_BC, axis=1)
        position_BN = (begun_BC[..., None] + 1 + jnp.arange(self.slots, dtype=jnp.int32)[None, None]).reshape(rows, -1)
        cache, where = _whole_cache(target, rows, length + count), {}
        if segments_BT is not None:
            where = {"positions_BT": within_BT, "mask_BTS": _text_seen(place_BT, segments_BT, count)}
        cache = jax.lax.stop_gradient(target.run(tokens_BT, cache, **where).cache)
        slots_ND = jnp.tile(self.embeddings(head), (begins_BC.shape[1], 1))
        hidden_BND = entering(target, slots_ND[None], position_BN)
        text_BNT = _text_seen(place_BT, segments_BT, 0, jnp.repeat(begins_BC, self.slots, axis=1))
        cut_N, depth_N = np.divmod(np.arange(count), self.slots)
        own_NN = (cut_N[:, None] == cut_N[None]) & (depth_N[:, None] >= depth_N[None])
        mask_BNS = jnp.concatenate([text_BNT, jnp.broadcast_to(own_NN[None], (rows, count, count))], axis=2)
        nothing_BN = jnp.zeros((rows, count), jnp.int32)
        ran = target.run(nothing_BN, cache, positions_BT=position_BN, mask_BTS=mask_BNS, hidden_BTD=hidden_BND)
        return ran.hidden.reshape(rows, -1, self.slots, ran.hidden.shape[-1])

    def embeddings(self, head: Head) -> Array:
        """[L, D]."""
        return head.params["ahead"]["embedding"]

    def outward(self, params, term: int) -> dict:
        return {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        del head, term
        return target.unembed(hidden)

    def on_target(self, head: Head, target: CausalLM) -> OnSlots:
        return OnSlots(head, target)


def entering(target: CausalLM, embedded: Array, positions_BN: Array) -> Array:
    """[B, N, D]: what the target's first layer reads, of embeddings [N, D] or [B, N, D]."""
    hidden_BND = jnp.broadcast_to(embedded, (*positions_BN.shape, embedded.shape[-1])).astype(target.dtype)
    if not target.config.learned_positions:
        return hidden_BND
    table_PD = target.params["position_embed"]["embedding"]
    return hidden_BND + table_PD[jnp.minimum(positions_BN, target.config.max_positions - 1)]


def _whole_cache(target: CausalLM, rows: int, slots: int) -> KVCache:
    """Of layers with windows too: slots stand after any place of a text, and see what came before it."""
    config = target.config
    sizes = {"layers": config.num_layers, "kv_heads": config.num_kv_heads, "head_dim": config.head_dim}
    return KVCache.zeros(rows, slots, dtype=target.dtype, **sizes)


def _text_seen(place_BT: Array, segments_BT: Array | None, more: int, ends_BN: Array | None = None) -> Array:
    """bool [B, N, T + `more`]: the tokens up to each of these places (None: all) and of its segment."""
    ends_BN = place_BT if ends_BN is None else ends_BN
    seen_BNT = place_BT[:, None] <= ends_BN[..., None]
    if segments_BT is not None:
        own_BN = jnp.take_along_axis(segments_BT, ends_BN, axis=1)
        seen_BNT &= own_BN[..., None] == segments_BT[:, None]
    return jnp.pad(seen_BNT, ((0, 0), (0, 0), (0, more)))


class OnSlots(WithTarget):
    """Look-ahead slots beside the whole target that guesses at them, for decoding."""

    def ahead(self, last_B1: Array, cache: KVCache, count: int) -> tuple[Array, KVCache]:
        """([B, 1 + count, V], the target's cache) at the last token and at the slots after it."""
        config, target, start_B = self.head.config, self.target, jnp.asarray(cache.lengths_B)
        position_BM = start_B[:, None] + jnp.arange(1 + count, dtype=jnp.int32)[None]
        last_B1D, slots_ND = target.embedded(last_B1), config.embeddings(self.head)[:count]
        slots_BND = jnp.broadcast_to(slots_ND[None], (len(last_B1), *slots_ND.shape)).astype(last_B1D.dtype)
        hidden_BMD = entering(target, jnp.concatenate([last_B1D, slots_BND], axis=1), position_BM)
        ran = target.run(jnp.pad(last_B1, ((0, 0), (0, count))), cache, hidden_BTD=hidden_BMD)
        assert ran.cache is not None, "the target runs with a cache"
        return target.unembed(ran.hidden), ran.cache
