"""Kangaroo: an attention layer on the target's first layers guesses by the target's own output matrix.

Liu et al. 2024 (arXiv 2404.18911), as the released code has it: a norm before the attention, a residual beside it, no
MLP, a norm of its own at the end, and a cache of its own; output matrix and everything else of the target stay frozen.
The loss there is the cross entropy to the target's law; the default divergence here has the same gradient, and differs
by the law's entropy. Their exit of a 7B target is after 2 layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.early import Early
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class Kangaroo(Early):
    """The adapter: what it adds to the hidden state at the exit is attention alone."""

    name = "kangaroo"
    paper = "arXiv 2404.18911"

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        del target, counts_V
        size, whole = self.sizes.hidden_size, layer.init_layer(self.layer, key, self.sizes.hidden_size)
        adapter = {"attention": whole["attention"], "attention_norm": layer.unit_norm(size)}
        return {"layer": adapter, "norm": layer.unit_norm(size)}, None

    def guessed(
        self, head: Head, target: CausalLM, tokens_BT: Array, features_BTF: Array, segments_BT: Array | None
    ) -> tuple[Array, ...]:
        del target, tokens_BT
        params = head.params
        run = layer.Unrolled(self.layer, params["layer"], segments_BT, rematerialise=self.rematerialise)
        return (self._ended(params, run.step(self._begun(params, features_BTF), features_BTF)),)

    def read(self, params: Any, features_BTD: Array, cache: KVCache) -> tuple[Array, KVCache]:
        begun_BTD = self._begun(params, features_BTD)
        made_BTD, cache = layer.read(self.layer, params["layer"], begun_BTD, features_BTD, cache)
        return self._ended(params, made_BTD), cache

    def _begun(self, params: Any, hidden: Array) -> Array:
        return layer.normed(self.layer, params["layer"]["attention_norm"], hidden)

    def _ended(self, params: Any, hidden: Array) -> Array:
        return layer.normed(self.layer, params["norm"], hidden)


KIND = Kangaroo
