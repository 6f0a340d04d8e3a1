"""The law tokens are drawn from: temperature, top-k and top-p, the same on target and draft."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; `top_k` 0 and `top_p` 1 keep every token. Filters apply after the temperature.

    `shared_noise`: the random numbers of a token belong to its request and its place, whoever draws it, so that the
    same text is sampled for a seed whatever the drafter; see `adaspec_jax.decoding.noise`.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    shared_noise: bool = False

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 (greedy) or positive, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def shares_noise(self) -> bool:
        """Whether noise is shared, and there is any: greedy decoding needs none."""
        return self.shared_noise and not self.greedy

    @property
    def settled(self) -> bool:
        """Whether a token follows from its law and its place, so that guesses are point masses."""
        return self.greedy or self.shared_noise

    def probs(self, logits_V: Array) -> Array:
        """The float32 law over the last axis; one-hot at the (first) most likely token when greedy."""
        if self.greedy:
            logits_V = logits_V.astype(jnp.float32)
            return jax.nn.one_hot(most_likely(logits_V), logits_V.shape[-1], dtype=jnp.float32)
        return jax.nn.softmax(self.filtered(logits_V), axis=-1)

    def filtered(self, logits_V: Array) -> Array:
        """Float32 logits at the temperature, which must not be 0; -inf for tokens that the filters leave out."""
        logits_V = logits_V.astype(jnp.float32) / self.temperature
        if 0 < self.top_k < logits_V.shape[-1]:
            kth = jax.lax.top_k(logits_V, self.top_k)[0][..., -1:]
            logits_V = jnp.where(logits_V < kth, -jnp.inf, logits_V)
        if self.top_p < 1:
            sorted_V = jnp.flip(jnp.sort(logits_V, axis=-1), axis=-1)
            probs_V = jax.nn.softmax(sorted_V, axis=-1)
            # The mass before a token decides, so the first always stays.
            inside_V = jnp.cumsum(probs_V, axis=-1) - probs_V < self.top_p
            last = jnp.min(jnp.where(inside_V, sorted_V, jnp.inf), axis=-1, keepdims=True)
            logits_V = jnp.where(logits_V < last, -jnp.inf, logits_V)
        return logits_V

    def draw(self, key: Array, probs_V: Array) -> Array:
        """One token per row of `probs_V`, int32, whatever its rows sum to. Greedy takes the mode: nothing is random.

        By inversion, with two random numbers a row, where Gumbel noise takes one for every token: on a CPU 9 to 31
        times as fast from V = 50k on, and about equal at 1k (`benchmarks/sampling.py`). Accelerators are unmeasured.
        """
        if self.greedy:
            return most_likely(probs_V)
        return invert(jax.random.uniform(key, (2, *probs_V.shape[:-1])), probs_V)

    def pick(self, key: Array, logits_V: Array) -> tuple[Array, Array | None]:
        """A token drawn from `probs(logits_V)`, and that law; None when greedy, where the token is a point mass."""
        if self.greedy:
            return most_likely(logits_V), None
        probs_V = self.probs(logits_V)
        return self.draw(key, probs_V), probs_V


def most_likely(scores_V: Array) -> Array:
    """The first of the greatest, int32: `argmax` as two plain reductions, which XLA:CPU runs faster."""
    size = scores_V.shape[-1]
    index_V = jnp.arange(size, dtype=jnp.int32).reshape((1,) * (scores_V.ndim - 1) + (size,))
    greatest = scores_V == jnp.max(scores_V, axis=-1, keepdims=True)
    return jnp.minimum(jnp.min(jnp.where(greatest, index_V, size), axis=-1), size - 1)  # a row of NaN has no greatest


def invert(uniform_2: Array, weights_V: Array) -> Array:
    """The token at a point of its law's two-level distribution, int32: a column of tokens, then one of the column.

    `uniform_2` [2, ...] in [0, 1] for `weights_V` [..., V]. Each level has its own number, because one of float32's 23
    bits would be spent on finding the column. A token of weight zero is never taken.
    """
    *rows, size = weights_V.shape
    height = min(_COLUMN, size)
    width = -(-size // height)
    padded_V = jnp.pad(weights_V, [(0, 0)] * len(rows) + [(0, height * width - size)])
    # Tokens of a column lie apart, so that the sums of all columns are plain additions of vectors.
    weights_YX = padded_V.reshape(*rows, height, width)
    column = _first_past(uniform_2[0], jnp.sum(weights_YX, axis=-2))
    weights_Y = jnp.take_along_axis(weights_YX, column[..., None, None], axis=-1)[..., 0]
    return _first_past(uniform_2[1], weights_Y) * width + column


def _first_past(uniform: Array, weights_X: Array) -> Array:
    """The first positive weight where the sum passes `uniform` of the whole; the last one if rounding hides it."""
    index_X = jnp.arange(weights_X.shape[-1], dtype=jnp.int32)
    sums_X = jnp.cumsum(weights_X, axis=-1)
    past_X = (weights_X > 0) & (sums_X > uniform[..., None] * sums_X[..., -1:])
    last = jnp.max(jnp.where(weights_X > 0, index_X, 0), axis=-1)
    return jnp.minimum(jnp.min(jnp.where(past_X, index_X, len(index_X)), axis=-1), last)


_COLUMN = 128  # tokens: about the square root of V, where both levels are short

GREEDY = Sampling(temperature=0.0)
