"""Where the tokens of one call stand in every layer, what they see there, and where their entries are written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.attention import positions_within
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.layer import Form, Where, rotation_at
from adaspec_jax.models.ring import at_once, held, window_mask

_ALL = 2**30  # a window that no text fills


@dataclass
class Placed:
    """The tokens of a call, while its program is traced: what layers share is computed once."""

    config: DecoderConfig
    count: int
    start_B: Array
    positions_BT: Array
    mask_BTS: Array | None  # of a layer that attends to all; None: what precedes a token in this call
    segments_BT: Array | None
    cache: KVCache | None
    causal: bool  # nobody gave a mask
    _known: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: DecoderConfig,
        tokens_BT: Array,
        cache: KVCache | None,
        positions_BT: Array | None,
        mask_BTS: Array | None,
        segments_BT: Array | None,
    ) -> Placed:
        count = tokens_BT.shape[1]
        start_B = jnp.zeros((tokens_BT.shape[0],), jnp.int32) if cache is None else jnp.asarray(cache.lengths_B)
        steps_1T = jnp.arange(count, dtype=jnp.int32)[None, :]
        if positions_BT is None and segments_BT is not None:
            positions_BT = positions_within(segments_BT)
        elif positions_BT is None:
            positions_BT = start_B[:, None] + steps_1T
        causal = mask_BTS is None
        if causal and cache is not None and not cache.known_empty:
            slots_11S = jnp.arange(cache.slots, dtype=jnp.int32)[None, None, :]
            mask_BTS = slots_11S <= (start_B[:, None] + steps_1T)[:, :, None]
        return cls(config, count, start_B, positions_BT, mask_BTS, segments_BT, cache, causal)

    def in_layer(self, layer: int) -> tuple[Where, Form]:
        """Of layer `layer`, counted from 0."""
        c, window = self.config, self.config.window(layer)
        mask_BTS, writes = self._once(("mask", window), lambda: self._seen(layer, window))
        writes_B = None if self.cache is not None and self.cache.known_empty and writes != "ring" else self.start_B
        where = Where(self._rotation(c.rotation(layer)), mask_BTS, writes_B, self.segments_BT)
        return where, Form(window=window, writes=writes)

    def kinds(self) -> Any:
        """Per layer, stacked, what `in_layer_of` goes by where layers differ; None where they do not."""
        c = self.config
        if c.alike:
            return None
        rotations = [c.rotation(layer) for layer in range(c.num_layers)]
        windows = [c.window(layer) or _ALL for layer in range(c.num_layers)]
        return jnp.array([sorted(set(rotations)).index(kind) for kind in rotations]), jnp.array(windows)

    def in_layer_of(self, kind: tuple[Array, Array] | None) -> tuple[Where, Form]:
        """Of a layer known on the device alone, without a cache."""
        if kind is None:
            return self.in_layer(0)
        rotation, reach = kind
        mask_BTS = None
        if self.mask_BTS is not None:
            mask_BTS = window_mask(self.mask_BTS, self._slots(self.count), self.start_B, self.positions_BT, reach)
        return Where(self._chosen(rotation), mask_BTS, self.start_B, self.segments_BT, reach), Form()

    def _seen(self, layer: int, window: int) -> tuple[Array | None, str]:
        """What a layer's tokens see of its entries, and how theirs are written."""
        cache = self.cache
        size = self.count if cache is None else cache.keys[layer].shape[2]
        if not window or (cache is None and self.mask_BTS is None):
            return self.mask_BTS, "slots"
        if cache is None:
            slot_BX, writes = self._slots(self.count), "slots"
        elif self.mask_BTS is None:  # an empty cache
            return None, "slots" if self.count <= size else "tail"
        elif size == cache.slots:
            slot_BX, writes = self._slots(size), "slots"
        elif self.count <= at_once(size, window):
            slot_BX, writes = held(self.start_B + self.count, size), "ring"
        else:
            new_BT = self.start_B[:, None] + jnp.arange(self.count, dtype=jnp.int32)[None]
            slot_BX, writes = jnp.concatenate([held(self.start_B, size), new_BT], axis=1), "tail"
        mask_BTS = None if self.causal else self.mask_BTS  # nothing is looked up in one that says what places do
        return window_mask(mask_BTS, slot_BX, self.start_B, self.positions_BT, window), writes

    def _slots(self, count: int) -> Array:
        return jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (len(self.start_B), count))

    def _rotation(self, kind: int) -> tuple[Array, Array] | None:
        return self._once(("rotation", kind), lambda: rotation_at(self.config, kind, self.positions_BT))

    def _chosen(self, index: Array) -> tuple[Array, Array]:
        """The rotation of a kind that is known on the device alone; none is one by no angle."""
        kinds = sorted(set(self.config.rotations or (0,)))
        turned = next(rotation for kind in (0, 1) if (rotation := self._rotation(kind)) is not None)
        still = jnp.ones_like(turned[0]), jnp.zeros_like(turned[1])
        each = [still if (rotation := self._rotation(kind)) is None else rotation for kind in kinds]
        first, second = (jnp.stack(parts)[index] for parts in zip(*each, strict=True))
        return first, second

    def _once(self, key: Any, compute: Any) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


class Entries:
    """A cache's buffers, layer by layer, while a call goes through them."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._tails: list[Any] = [None] * len(cache.keys)
        self._buffers = list(zip(cache.keys, cache.values, strict=True))

    def __getitem__(self, layer: int) -> tuple[Array, Array]:
        return self._buffers[layer]

    def put(self, layer: int, written: tuple[Array, Array], form: Form) -> None:
        """What a layer left: its buffers, or what lies beside them."""
        if form.writes != "tail":
            self._buffers[layer] = written
        elif isinstance(form.runs[0], jax.Array):
            raise ValueError("whether attention runs must be known where more is read at once than a ring takes back")
        elif form.runs[0]:
            self._tails[layer] = written

    def extended(self, start_B: Array, count: int) -> KVCache:
        """The cache with `count` more tokens per row."""
        keys, values = zip(*self._buffers, strict=True)
        new = {"keys": keys, "values": values, "lengths_B": start_B + jnp.int32(count)}
        if any(tail is not None for tail in self._tails):
            new |= {"tails": tuple(self._tails), "begun_B": start_B}
        return replace(self._cache, **new)
