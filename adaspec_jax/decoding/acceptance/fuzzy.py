"""Lossy: a guess stays where target and drafter are of nearly one mind, whatever was guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance.longest import in_place_of_guesses, keep_longest
from adaspec_jax.decoding.acceptance.walk import at_token
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class Fuzzy:
    """Lossy: accepts while the divergence of the target's law p and the drafter's q is at most `threshold`, in nats.

    Fuzzy speculative decoding (FSD, arXiv 2502.20704). The laws are compared as they are, at temperature 1 and without
    filters, at any temperature; processors apply to both. After the first failure, or the whole chain, the next token
    is drawn from the target's law at the sampling's settings: there is no residual. Greedy decoding keeps the drafter's
    likeliest tokens in the same way, and takes the target's after them. In a tree siblings pass or fail together, and
    the longest path stays, of several the likeliest under the target (ours).

    `divergence`, with m = (p + q) / 2:
      "js": KL(p|m) / 2 + KL(q|m) / 2, at most ln 2.
      "fsd_js": KL(m|p) / 2 + KL(m|q) / 2, which their code computes under the name "js_div"; thresholds of the two are
        not interchangeable.
      "kl": KL(q|p), as their "kl_div".
      "reversed_kl": KL(p|q).
      "tv": sum |p - q| / 2.

    `top_k` above 0: over the target's so many likeliest tokens and one entry for all others (theirs: 50). They too
    compare warped laws, with 1e-10 added to each entry, where asked to; that is left out.

    Raises:
      ValueError: a drafter that does not say its opinion (`Proposal.opinion_BNV`).
    """

    threshold: float = 0.4
    divergence: str = "js"
    top_k: int = 0
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"the threshold of a divergence must be at least 0, not {self.threshold}")
        if self.divergence not in _DIVERGENCES:
            raise ValueError(f'the divergence must be one of {", ".join(_DIVERGENCES)}, not "{self.divergence}"')
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or positive, not {self.top_k}")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        if proposal.opinion_BNV is None:
            raise ValueError("fuzzy acceptance compares laws, and this drafter does not say its own")
        logp_BNV = jax.nn.log_softmax(in_place_of_guesses(proposal, logits_BMV))
        logq_BNV = jax.nn.log_softmax(proposal.opinion_BNV.astype(jnp.float32))
        logp_BN = at_token(logp_BNV, proposal.tokens_BN)
        if 0 < self.top_k < logp_BNV.shape[-1]:
            _, likeliest_BNK = jax.lax.top_k(logp_BNV, self.top_k)
            logp_BNV, logq_BNV = (_bucketed(log_BNV, likeliest_BNK) for log_BNV in (logp_BNV, logq_BNV))
        passes_BN = _DIVERGENCES[self.divergence](logp_BNV, logq_BNV) <= self.threshold
        return keep_longest(key, proposal, logits_BMV, sampling, passes_BN, logp_BN)


def _bucketed(log_BNV: Array, kept_BNK: Array) -> Array:
    """The log-probabilities of the tokens that are kept, and of all others together, [B, N, K + 1]."""
    others_BNV = jnp.put_along_axis(log_BNV, kept_BNK, -jnp.inf, axis=-1, inplace=False)
    others_BN1 = jax.nn.logsumexp(others_BNV, axis=-1, keepdims=True)
    return jnp.concatenate([jnp.take_along_axis(log_BNV, kept_BNK, axis=-1), others_BN1], axis=-1)


def _kl(loga_V: Array, logb_V: Array) -> Array:
    """KL(a|b); infinite where b is zero and a is not."""
    return jnp.sum(jnp.where(loga_V > -jnp.inf, jnp.exp(loga_V) * (loga_V - logb_V), 0.0), axis=-1)


def _middle(logp_V: Array, logq_V: Array) -> Array:
    """log((p + q) / 2), to the bit log(p) where the two are equal: equal laws are nothing apart."""
    return jnp.maximum(logp_V, logq_V) + jnp.log1p(jnp.expm1(-jnp.abs(logp_V - logq_V)) / 2)


def _js(logp_V: Array, logq_V: Array) -> Array:
    logm_V = _middle(logp_V, logq_V)
    return (_kl(logp_V, logm_V) + _kl(logq_V, logm_V)) / 2


def _fsd_js(logp_V: Array, logq_V: Array) -> Array:
    logm_V = _middle(logp_V, logq_V)
    return (_kl(logm_V, logp_V) + _kl(logm_V, logq_V)) / 2


def _tv(logp_V: Array, logq_V: Array) -> Array:
    return jnp.sum(jnp.abs(jnp.exp(logp_V) - jnp.exp(logq_V)), axis=-1) / 2


_DIVERGENCES = {
    "js": _js,
    "fsd_js": _fsd_js,
    "kl": lambda logp_V, logq_V: _kl(logq_V, logp_V),
    "reversed_kl": _kl,
    "tv": _tv,
}
