"""Divergences between the target's and the draft's next-token laws, per position, in nats.

All take raw logits of any float type, compute in float32 and return `[...]` without the vocabulary axis. Entries of
minus infinity (or the -1e9 of masked vocabulary rows) on both sides contribute nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Divergence = Callable[[Array, Array], Array]


def forward_kl(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """KL(target || draft) [B, T]: the loss of AdaSPEC (arXiv 2510.19779, eq. 7-10) and of its DistillSpec baseline."""
    return _kl(_log_law(target_logits_BTV), _log_law(draft_logits_BTV))


def reverse_kl(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """KL(draft || target) [B, T] (DistillSpec, arXiv 2310.08461)."""
    return _kl(_log_law(draft_logits_BTV), _log_law(target_logits_BTV))


def jensen_shannon(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """KL(p|m)/2 + KL(q|m)/2 with m = (p + q) / 2 [B, T]; at most ln 2 (DistillSpec, with beta = 1/2)."""
    p_BTV, q_BTV = _log_law(target_logits_BTV), _log_law(draft_logits_BTV)
    # The floor keeps the gradient defined where both are minus infinity.
    m_BTV = jnp.logaddexp(jnp.maximum(p_BTV, -1e9), jnp.maximum(q_BTV, -1e9)) - jnp.log(2.0)
    return (_kl(p_BTV, m_BTV) + _kl(q_BTV, m_BTV)) / 2


def total_variation(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """sum |p - q| / 2 [B, T]: one minus the acceptance rate at temperature 1 (Leviathan et al. 2023, cor. 3.6)."""
    p_BTV, q_BTV = jnp.exp(_log_law(target_logits_BTV)), jnp.exp(_log_law(draft_logits_BTV))
    return jnp.sum(jnp.abs(p_BTV - q_BTV), axis=-1) / 2


def gap(
    divergence: Divergence, draft_logits_BTV: Array, reference_logits_BTV: Array, target_logits_BTV: Array
) -> Array:
    """divergence(draft) - divergence(reference) [B, T]: what the draft could still gain, as the reference shows.

    For the forward KL in one sum of differences, sum p (log r - log q): subtracting two large cross-entropies loses the
    digits that decide which tokens lie above the selection threshold.
    """
    if divergence is forward_kl:
        p_BTV = _log_law(target_logits_BTV)
        difference_BTV = _log_law(reference_logits_BTV) - _log_law(draft_logits_BTV)
        return jnp.sum(_weighted(p_BTV, difference_BTV), axis=-1)
    return divergence(draft_logits_BTV, target_logits_BTV) - divergence(reference_logits_BTV, target_logits_BTV)


def _log_law(logits_BTV: Array) -> Array:
    return jax.nn.log_softmax(logits_BTV.astype(jnp.float32), axis=-1)


def _kl(log_p_BTV: Array, log_q_BTV: Array) -> Array:
    return jnp.sum(_weighted(log_p_BTV, log_p_BTV - log_q_BTV), axis=-1)


def _weighted(log_p_BTV: Array, value_BTV: Array) -> Array:
    """p * value, and 0 where p is 0 even if the value is infinite or undefined there (for the gradient too)."""
    p_BTV = jnp.exp(log_p_BTV)
    return p_BTV * jnp.where(p_BTV > 0, value_BTV, 0.0)


DIVERGENCES: dict[str, Divergence] = {
    function.__name__: function for function in (forward_kl, reverse_kl, jensen_shannon, total_variation)
}
