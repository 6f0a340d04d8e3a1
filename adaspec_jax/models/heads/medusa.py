"""Medusa: heads that each guess a token further on from the target's last hidden state alone.

Cai et al. 2024 (arXiv 2401.10774). The released code ties the blocks of a head where it has several; here each is its
own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.models.files.weights import StoredTensor, Weight, linear
from adaspec_jax.models.heads.parts import layouts
from adaspec_jax.models.heads.parts.several import Several
from adaspec_jax.models.heads.parts.sizes import Sizes
from adaspec_jax.models.heads.parts.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Medusa(Several):
    """Cross entropy of the text's own tokens, as Medusa-1 is trained; `hard=False` distils the target's law."""

    name = "medusa"
    paper = "arXiv 2401.10774"

    hard: bool = True

    def hf_config(self) -> dict[str, Any]:
        sizes = {"hidden_size": self.sizes.hidden_size, "vocab_size": self.sizes.vocab_size}
        counts = {"num_heads": self.heads, "num_hidden_layers": self.blocks, "medusa_fc_bias": self.bias}
        return {"model_type": "medusa", "architectures": ["MedusaModel"]} | sizes | counts

    def table(self, shapes: Any) -> list[Weight]:
        rows = []
        for i in range(self.heads):
            for j in range(self.blocks):
                block = linear(f"blocks.{i}.layers.{j}", f"head_{i}/block_{j}", bias=self.bias)
                rows += [layouts.renamed(row, f"blocks.{i}.layers.{j}", f"{i}.{j}.linear") for row in block]
            matrix = linear(f"lm_heads.{i}", f"head_{i}/head", bias=False)
            rows += [layouts.renamed(row, f"lm_heads.{i}", f"{i}.{self.blocks}") for row in matrix]
        return rows

    @classmethod
    def published(cls, stored: Stored) -> Medusa:
        """With either spelling of the names; UserError for what is not computed here."""
        for name in [name for name in stored.tensors if name.startswith(_PREFIX)]:
            stored.tensors[name.removeprefix(_PREFIX)] = stored.tensors.pop(name)
        sizes = Sizes.of(stored.target.config)
        for key in ("hidden_size", "vocab_size"):
            if key in stored.config:
                layouts.check_size(key, stored.count(key), getattr(sizes, key))
        if stored.count("truncated_vocab_size", default=sizes.vocab_size) != sizes.vocab_size:
            stored.refuse("truncated_vocab_size")
        if "token_map" in stored.tensors:
            raise UserError("token_map: Medusa's heads here guess among all of the target's tokens")
        old = "medusa_num_heads" in stored.config
        names = ("medusa_num_heads", "medusa_num_layers") if old else ("num_heads", "num_hidden_layers")
        heads, blocks = stored.count(names[0]), stored.count(names[1], default=1)
        if stored.flag("original_lm_head"):
            one = _one_matrix(stored)
            stored.tensors.update({f"lm_heads.{i}.weight": one for i in range(heads)})
        bias = any(re.fullmatch(r"(blocks\.\d+\.layers\.\d+|\d+\.\d+\.linear)\.bias", name) for name in stored.tensors)
        return cls(sizes=sizes, heads=heads, blocks=blocks, bias=bias)


_PREFIX = "medusa_heads."  # as some have it before every name


def _one_matrix(stored: Stored) -> StoredTensor:
    """The one output matrix of all heads: the first head's where the file has that, else the target's."""
    first = stored.tensors.get("lm_heads.0.weight")
    if first is not None:
        return first
    rows = layouts.target_rows(stored.target, layouts.MATRIX).astype(np.float32)
    return StoredTensor(rows.shape, "F32", lambda: rows)


KIND = Medusa
