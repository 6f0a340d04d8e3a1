"""Heads that guess a whole block in one pass, at slots after the last committed token: DFlash's kind and P-EAGLE's."""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.apart import drawn_apart
from adaspec_jax.decoding.drafters.shapes import UpToItsGuesses
from adaspec_jax.decoding.drafters.target.decided import decided, last_decided, with_features
from adaspec_jax.decoding.prefill import tokens_from
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal


class BlockHead(Protocol):
    """A head beside a target, with the embeddings that it reads; `models.heads` has such values."""

    layers: tuple[float, ...]  # the target's whose hidden states it reads
    guesses: int

    def read(self, features_BTF: Array, tokens_BT: Array, cache: Any) -> tuple[Array, Any]:
        """(what `guess` reads of each position [B, T, ...], the cache T entries longer).

        Column t has the target's hidden states of position t, and the token after it.
        """

    def guess(self, read_BF: Array, tokens_B: Array, cache: Any) -> Array:
        """Logits [B, guesses, V] of what follows the tokens, whose predecessor is the cache's last entry."""

    def init_cache(self, batch_size: int, slots: int) -> Any: ...


@pytree("length")
class BlockDrafter(UpToItsGuesses):
    """`length` guesses in a row of one pass, or as many as the head makes.

    A guess knows nothing of those before it, so that each one's law is stated as it is. DFlash (arXiv 2602.06036) and
    P-EAGLE (2602.01469), as servers decode them. The head's cache holds what it makes of the target's hidden states at
    committed tokens, and nothing of its own guesses. All its slots are computed, however few guesses are asked for.

    Raises:
      ValueError: a length below 1.
    """

    head: BlockHead
    length: int

    @property
    def asks(self) -> Asks:
        return Asks(layers=self.head.layers, likeliest=0)

    def init(self, prompt: Context, slots: int) -> Any:
        features_BTF = jnp.concatenate(prompt.hidden, axis=-1)
        following_BT = jnp.roll(prompt.tokens_BS, -1, axis=1)
        cache = self.head.init_cache(len(prompt.lengths_B), slots)
        return self.head.read(features_BTF, following_BT, cache)[1].roll_back(prompt.lengths_B - 1)

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        features_BWF, start_B = decided(context, self.depth)
        tokens_BW = tokens_from(context.tokens_BS, start_B + 1, self.depth + 1)
        read_BWF, cache = self.head.read(features_BWF, tokens_BW, cache.roll_back(start_B))
        cache = cache.roll_back(context.lengths_B - 1)
        root_B = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)[:, 0]
        logits_BNV = self.head.guess(last_decided(context, read_BWF), root_B, cache)[:, : self.length]
        present_BV = context.present(logits_BNV.shape[-1])
        logits_BNV = context.sampling.processed(logits_BNV, None if present_BV is None else present_BV[:, None])
        return with_features(context, drawn_apart(key, context, logits_BNV)), cache
