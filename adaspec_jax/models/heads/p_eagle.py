"""P-EAGLE: EAGLE-3 that makes all its guesses in one pass, at masks in place of its own outputs.

arXiv 2602.01469, as SpecForge trains it and vLLM serves it. The first guess is EAGLE-3's; the slot of each later one
reads the mask token's embedding and one learned hidden vector, at the place in the text where its guess's predecessor
will stand, and attends to the text up to where its chain begins and to the chain's earlier slots. Layers after the
first are Llama's on the first one's output. In training a chain begins at every label, and max(keep^d, least) of them
go on to depth d, drawn anew at every step; the loss is one mean over the guesses of all depths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.attention import cached_attention, causal_attention
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.weights import Weight, norm, same
from adaspec_jax.models.heads.eagle3 import Eagle3
from adaspec_jax.models.heads.parts import blocks, layer, layouts
from adaspec_jax.models.heads.parts.blocks import InBlocks, Pair
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.stored import Stored
from adaspec_jax.models.heads.parts.texts import Places, begins, following
from adaspec_jax.models.kv_cache import KVCache, write_at

_State = tuple[Array, Array]  # what attention reads of tokens, and their residual
_MASKS = ("pard_token", "mask_token_id", "ptd_token_id")  # each, in config.json, the mask token


@dataclass(frozen=True, kw_only=True)
class PEagle(InBlocks, Eagle3):
    """`steps` guesses in one pass, by `depth` layers. `mask`: the mask token; -1: the last row."""

    name = "p_eagle"
    paper = "arXiv 2602.01469"
    together = True

    steps: int = 8
    decay: float = 1.0
    depth: int = 4
    keep: float = 0.7
    least: float = 0.2
    mask: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_knobs(self, counts=("depth",), shares=("keep", "least"))
        if not -1 <= self.mask < self.sizes.vocab_size:
            raise ValueError(f"mask is {self.mask}; the target has {self.sizes.vocab_size} vocabulary rows")

    @property
    def num_layers(self) -> int:
        return self.depth

    @property
    def guesses(self) -> int:
        return self.steps

    @property
    def mask_token(self) -> int:
        return self.mask if self.mask >= 0 else self.sizes.vocab_size - 1

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        keys, size = jax.random.split(key, self.depth + 1), self.sizes.hidden_size
        params, tables = super().init(keys[0], target, counts_V)
        params["mask_hidden"] = jax.random.normal(keys[1], (1, len(self.layers) * size), jnp.float32)
        for i in range(1, self.depth):
            norms = {"attention_norm": layer.unit_norm(size)}
            params[f"layer_{i}"] = layer.init_layer(self.layer, keys[i + 1], size) | norms
        return params, tables

    # In training.

    def places(self, labels_BT: Array, segments_BT: Array | None, key: Array) -> Places:
        fit_BT = begins(labels_BT, segments_BT, 1)
        length = fit_BT.shape[1]
        drawn, number_B1 = Places.drawn(key, fit_BT, length), jnp.sum(fit_BT, axis=1, keepdims=True)
        goes = [jnp.arange(length)[None] < jnp.ceil(self._share(d) * number_B1) for d in range(self.steps)]
        return drawn._replace(real_BIN=drawn.real_BIN & jnp.stack(goes, axis=1))

    def labels_of(self, count: int) -> float:
        return sum(math.ceil(self._share(d) * count) for d in range(self.steps))

    def _share(self, depth: int) -> float:
        """Of chains that have a guess so deep."""
        return max(self.keep**depth, self.least) if depth else 1.0

    def guessed_at(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT, places: Places
    ) -> tuple[Array, ...]:
        params, where_BT = head.params, blocks.positions_of(tokens_BT, segments_BT)
        batch, count = places.at_BN.shape
        every = places.real_BIN.shape[1] == 1
        counts = [count if every else int(np.ceil(self._share(d) * count)) for d in range(1, self.steps)]
        along = self._joined(params, target, following(tokens_BT, 1), features_BTF)
        chains = self._masks(params, target, batch, counts)
        first_BN, sees_BNT = places.take(where_BT), blocks.visible(places, tokens_BT.shape[1], segments_BT)
        how: dict[str, Any] = {"kernel": self.attention, "block": self.attention_block, "segments_BT": segments_BT}

        def through(part: Any, along: _State, chains: Sequence[_State]) -> tuple[Array, list[Array]]:
            query, pair = blocks.projected(self.layer, part["attention"], along[0], where_BT)
            mixed = causal_attention(query, *pair, **how).reshape(*where_BT.shape, -1)
            return blocks.added(self.layer, part, along[1], mixed), self._chained(
                part, chains, first_BN, pair, sees_BNT
            )

        through = jax.checkpoint(through) if self.rematerialise else through
        made_BTD, made = through(params["layer"], along, chains)
        for i in range(1, self.depth):
            part = params[f"layer_{i}"]
            enter = partial(self._entering, part)
            made_BTD, made = through(part, enter(made_BTD), list(map(enter, made)))
        rest = [jnp.pad(x, ((0, 0), (0, count - x.shape[1]), (0, 0))) for x in made]
        return (places.take(made_BTD), *rest)

    def _joined(self, params: Any, target: CausalLM, tokens_BT: Array, features_BTF: Array) -> _State:
        embedded_BTD = jax.lax.stop_gradient(target.embedded(tokens_BT)).astype(features_BTF.dtype)
        return self.joined(params, embedded_BTD, self.entered(params, features_BTF))

    def _masks(self, params: Any, target: CausalLM, batch: int, counts: Sequence[int]) -> list[_State]:
        """What enters the first layer at the slots of each depth, of so many chains."""
        tokens_11 = jnp.full((1, 1), self.mask_token, jnp.int32)
        state = self._joined(params, target, tokens_11, params["mask_hidden"][None])
        wide = [tuple(jnp.broadcast_to(x, (batch, count, x.shape[-1])) for x in state) for count in counts]
        return [(inputs, residual) for inputs, residual in wide]

    def _entering(self, part: Any, hidden: Array) -> _State:
        return layer.normed(self.layer, part["attention_norm"], hidden), hidden

    def _chained(
        self, part: Any, chains: Sequence[_State], first_BN: Array, text: Pair, sees_BNT: Array
    ) -> list[Array]:
        """A layer's output at the slots of each depth, which the first so many chains have."""
        own: list[Pair] = []
        made = []
        for depth, (inputs_BNW, residual_BND) in enumerate(chains, 1):
            count = inputs_BNW.shape[1]
            query, pair = blocks.projected(self.layer, part["attention"], inputs_BNW, first_BN[:, :count] + depth)
            own.append(pair)
            seen = tuple(jnp.stack([x[i][:, :count] for x in own], axis=2) for i in (0, 1))
            where = (sees_BNT[:, :count], np.ones((1, depth), bool), self.attention_block)
            mixed = blocks.attend(query[:, :, None], text, (seen[0], seen[1]), *where)
            made.append(blocks.added(self.layer, part, residual_BND, mixed[:, :, 0]))
        return made

    # In decoding.

    def cached(self, params: Any, target: CausalLM, features_BTF: Array, tokens_BT: Array, cache: KVCache):
        start_B = jnp.asarray(cache.lengths_B)
        where_BT = start_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        mask_BTS = jnp.arange(cache.slots)[None, None] <= where_BT[:, :, None]
        state, keys, values = self._joined(params, target, tokens_BT, features_BTF), [], []
        made_BTD = state[1]
        for i in range(self.depth):
            part = params[f"layer_{i}"] if i else params["layer"]
            state = self._entering(part, made_BTD) if i else state
            query, (key, value) = blocks.projected(self.layer, part["attention"], state[0], where_BT)
            keys.append(write_at(cache.keys[i], key, start_B))
            values.append(write_at(cache.values[i], value, start_B))
            entries = (x[-1].astype(query.dtype) for x in (keys, values))
            mixed = cached_attention(query, *entries, mask_BTS).reshape(*tokens_BT.shape, -1)
            made_BTD = blocks.added(self.layer, part, state[1], mixed)
        lengths_B = start_B + jnp.int32(tokens_BT.shape[1])
        return made_BTD, replace(cache, keys=tuple(keys), values=tuple(values), lengths_B=lengths_B)

    def at_slots(self, head: Head, target: CausalLM, read_BF: Array, tokens_B: Array, cache: KVCache) -> Array:
        del tokens_B  # read with its predecessor's hidden states
        params = head.params
        made: list[Array] = []
        chains = self._masks(params, target, len(read_BF), [1] * (self.steps - 1))
        chains = [(inputs.astype(read_BF.dtype), residual.astype(read_BF.dtype)) for inputs, residual in chains]
        first_B1 = jnp.asarray(cache.lengths_B)[:, None] - 1
        for i in range(self.depth):
            part = params[f"layer_{i}"] if i else params["layer"]
            chains = [self._entering(part, x) for x in made] if i else chains
            made = self._chained(part, chains, first_B1, *blocks.in_cache(cache, i, read_BF.dtype))
        hidden_BND = jnp.concatenate([read_BF[:, None], *made], axis=1)
        return self.spread(head, self.logits(head, target, hidden_BND))

    # On disk: EAGLE-3's, and what vLLM reads beside it.

    def hf_config(self) -> dict[str, Any]:
        own = {"num_hidden_layers": self.depth, "parallel_drafting": True, _MASKS[0]: self.mask_token}
        return super().hf_config() | own

    def table(self, shapes: Any) -> list[Weight]:
        rows = [*super().table(shapes), Weight("mask_hidden", ("mask_hidden",), same)]
        for i in range(1, self.depth):
            rows += layouts.layer_rows(f"layers.{i}", f"layer_{i}")
            rows += norm(f"layers.{i}.input_layernorm", f"layer_{i}/attention_norm", bias=False)
        return rows

    @classmethod
    def published(cls, stored: Stored) -> PEagle:
        """In the layout that vLLM reads; how it was trained is not to be read there."""
        names = [name for name in _MASKS if stored.config.get(name) is not None]
        mask, depth = stored.count(names[0] if names else _MASKS[0]), stored.count("num_hidden_layers")
        return cls(mask=mask, depth=depth, **cls.said_by(stored, layers=None))


KIND = PEagle
