"""The law tokens are drawn from: processors, temperature and filters, the same on target and draft."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 keep every token.

    In the order of transformers' `generate`: `logit_bias` is added, the logits of tokens that stand in the row's text,
    prompt included, are divided by `repetition_penalty` where positive and multiplied by it where negative, and tokens
    of `suppress_tokens` are ruled out. These processors change greedy text too. Then come the temperature, top-k,
    top-p, and min-p, which rules out what is less probable than `min_p` times the likeliest.

    `logit_bias`: {token: what is added}, or such pairs. `shared_noise`: the random numbers of a token belong to its
    request and its place, whoever draws it, so that the same text is sampled for a seed whatever the drafter; see
    `adaspec_jax.decoding.noise`.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    shared_noise: bool = False
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bias = self.logit_bias.items() if isinstance(self.logit_bias, Mapping) else self.logit_bias
        object.__setattr__(self, "logit_bias", tuple(sorted((int(token), float(value)) for token, value in bias)))
        object.__setattr__(self, "suppress_tokens", tuple(sorted({int(token) for token in self.suppress_tokens})))
        self._check()

    def _check(self) -> None:
        if self.temperature != 0 and not _COLDEST <= self.temperature <= _HOTTEST:
            raise ValueError(
                f"temperature must be 0 (greedy) or from {_COLDEST} to {_HOTTEST:.0e}, not {self.temperature}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be positive, 1 for none, not {self.repetition_penalty}")
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise ValueError("logit_bias has a token twice")
        if not all(math.isfinite(value) for _, value in self.logit_bias):
            raise ValueError(
                f"logit_bias must be finite: suppress_tokens rules tokens out; not {dict(self.logit_bias)}"
            )
        for name, tokens in self._named():
            if tokens and min(tokens) < 0:
                raise ValueError(f"{name} names tokens by their ids, from 0 on, not {min(tokens)}")

    def _named(self) -> list[tuple[str, list[int]]]:
        return [("logit_bias", [*dict(self.logit_bias)]), ("suppress_tokens", [*self.suppress_tokens])]

    def check_fits(self, vocab_size: int) -> None:
        """ValueError where a processor names a token that a vocabulary lacks, or leaves none of it."""
        for name, tokens in self._named():
            if tokens and max(tokens) >= vocab_size:
                raise ValueError(f"{name} names token {max(tokens)}; the vocabulary has ids below {vocab_size}")
        if len(self.suppress_tokens) == vocab_size:
            raise ValueError("suppress_tokens leaves no token")

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

    @property
    def processes(self) -> bool:
        """Whether logits change before temperature and filters."""
        return self.repetition_penalty != 1 or bool(self.logit_bias or self.suppress_tokens)

    def processed(self, logits_V: Array, present_V: Array | None) -> Array:
        """Float32 logits after the processors; as they are where there are none.

        `present_V`: the tokens that stand in the text, bool (`decoding.present`); None without a repetition penalty.
        """
        if not self.processes:
            return logits_V
        self.check_fits(logits_V.shape[-1])
        logits_V = jnp.asarray(logits_V, jnp.float32)
        if self.logit_bias:
            tokens, values = zip(*self.logit_bias, strict=True)
            logits_V = logits_V.at[..., np.array(tokens)].add(np.array(values, np.float32))
        if self.repetition_penalty != 1:
            assert present_V is not None, "a repetition penalty has to know the text"
            penalty = self.repetition_penalty
            logits_V = jnp.where(present_V, jnp.where(logits_V < 0, logits_V * penalty, logits_V / penalty), logits_V)
        if self.suppress_tokens:
            logits_V = logits_V.at[..., np.array(self.suppress_tokens)].set(-jnp.inf)
        return logits_V

    def probs(self, logits_V: Array) -> Array:
        """The float32 law over the last axis; one-hot at the (first) most likely token when greedy."""
        if self.greedy:
            logits_V = logits_V.astype(jnp.float32)
            return jax.nn.one_hot(most_likely(logits_V), logits_V.shape[-1], dtype=jnp.float32)
        return jax.nn.softmax(self.filtered(logits_V), axis=-1)

    def filtered(self, logits_V: Array) -> Array:
        """Float32 logits at the temperature, which must not be 0; -inf for tokens that the filters leave out."""
        logits_V = logits_V.astype(jnp.float32)
        if self.temperature < _COLD:
            logits_V -= jnp.max(logits_V, axis=-1, keepdims=True)
        logits_V /= self.temperature
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
        if self.min_p:
            least = jnp.max(logits_V, axis=-1, keepdims=True) + math.log(self.min_p)
            logits_V = jnp.where(logits_V < least, -jnp.inf, logits_V)
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


# Below, a logit over the temperature is too large for float32 to hold the differences that make the law.
_COLD, _COLDEST, _HOTTEST = 0.05, 1e-30, 1e6
_COLUMN = 128  # tokens: about the square root of V, where both levels are short

GREEDY = Sampling(temperature=0.0)
