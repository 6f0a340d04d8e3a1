"""Divergences between the target's and the draft's next-token laws, per position, in nats.

All take raw logits of any float type, compute in float32 and return `[...]` without the vocabulary axis. Entries of
minus infinity (or the -1e9 of masked vocabulary rows) on both sides contribute nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.errors import UserError, did_you_mean

Divergence = Callable[[Array, Array], Array]


def forward_kl(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """KL(target || draft) [B, T]: the loss of AdaSPEC (arXiv 2510.19779, eq. 7-10) and of its DistillSpec baseline."""
    return _kl_of_logits(target_logits_BTV.astype(jnp.float32), draft_logits_BTV.astype(jnp.float32))


def reverse_kl(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """KL(draft || target) [B, T] (DistillSpec, arXiv 2310.08461)."""
    return _kl_of_logits(draft_logits_BTV.astype(jnp.float32), target_logits_BTV.astype(jnp.float32))


def jensen_shannon(draft_logits_BTV: Array, target_logits_BTV: Array, beta: float = 0.5) -> Array:
    """beta KL(p|m) + (1 - beta) KL(q|m) with m = beta p + (1 - beta) q [B, T]: the generalised JSD of DistillSpec.

    With beta 1/2, the symmetric one, it is at most ln 2. Small beta comes near beta KL(p|q), near 1 (1 - beta) KL(q|p).
    """
    p_BTV, q_BTV = _log_law(target_logits_BTV), _log_law(draft_logits_BTV)
    # The floor keeps the gradient defined where both are minus infinity.
    m_BTV = jnp.logaddexp(
        jnp.maximum(p_BTV, -1e9) + jnp.log(jnp.float32(beta)), jnp.maximum(q_BTV, -1e9) + jnp.log(jnp.float32(1 - beta))
    )
    return beta * _kl(p_BTV, m_BTV) + (1 - beta) * _kl(q_BTV, m_BTV)


def total_variation(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """``sum |p - q| / 2`` [B, T]: one minus the acceptance rate at temperature 1 (Leviathan et al. 2023, cor. 3.6)."""
    p_BTV, q_BTV = jnp.exp(_log_law(target_logits_BTV)), jnp.exp(_log_law(draft_logits_BTV))
    return jnp.sum(jnp.abs(p_BTV - q_BTV), axis=-1) / 2


def negative_log_acceptance(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """-log sum min(p, q) [B, T]: minus the logarithm of the acceptance rate at temperature 1.

    The total variation's aim with 1 / acceptance times its gradient, so that it trains where the two laws hardly
    overlap. (As `nla` in vLLM's speculators, by its documentation.)
    """
    return -jax.nn.logsumexp(jnp.minimum(_log_law(target_logits_BTV), _log_law(draft_logits_BTV)), axis=-1)


def hybrid_acceptance(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
    """w KL(p|q) + (1 - w) TV(p, q) [B, T] with w = exp(-3 acceptance): the KL where laws hardly overlap, then the TV.

    The weight carries no gradient. (As `lk_hybrid` in vLLM's speculators, by its documentation.)
    """
    variation_BT = total_variation(draft_logits_BTV, target_logits_BTV)
    weight_BT = jax.lax.stop_gradient(jnp.exp(-3 * (1 - variation_BT)))
    return weight_BT * forward_kl(draft_logits_BTV, target_logits_BTV) + (1 - weight_BT) * variation_BT


def gap(
    divergence: Divergence, draft_logits_BTV: Array, reference_logits_BTV: Array, target_logits_BTV: Array
) -> Array:
    """divergence(draft) - divergence(reference) [B, T]: what the draft could still gain, as the reference shows.

    For the forward KL in one sum of differences, sum p (log r - log q): subtracting two large cross-entropies loses the
    digits that decide which tokens lie above the selection threshold.
    """
    if divergence is forward_kl:
        laws = (_law(logits) for logits in (target_logits_BTV, reference_logits_BTV, draft_logits_BTV))
        return _mean_log_ratio(*laws)
    return divergence(draft_logits_BTV, target_logits_BTV) - divergence(reference_logits_BTV, target_logits_BTV)


# Sums over the logits as they are, and maxima and normalisers apart, instead of over `log_softmax`: XLA:CPU evaluates
# them faster, and small ratios keep their digits.


_Law = tuple[Array, Array, Array]


def _law(logits_BTV: Array) -> _Law:
    """(logits, their maximum, log of the sum of the exponentials of logits minus maximum), float32."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    most_BT = jax.lax.stop_gradient(jnp.max(logits_BTV, axis=-1))
    return logits_BTV, most_BT, jnp.log(jnp.sum(jnp.exp(logits_BTV - most_BT[..., None]), axis=-1))


def _mean_log_ratio(p: _Law, a: _Law, b: _Law) -> Array:
    """E_p[log a - log b] of three laws; entries of no weight are left out, even where both logarithms are infinite."""
    (p_BTV, p_most_BT, p_norm_BT), (a_BTV, a_most_BT, a_norm_BT), (b_BTV, b_most_BT, b_norm_BT) = p, a, b
    weight_BTV = jnp.exp(p_BTV - p_most_BT[..., None])
    sum_BT = jnp.sum(jnp.where(weight_BTV > 0, weight_BTV * (a_BTV - b_BTV), 0.0), axis=-1)
    return sum_BT * jnp.exp(-p_norm_BT) + (b_most_BT - a_most_BT) + (b_norm_BT - a_norm_BT)


@jax.custom_vjp
def _kl_of_logits(p_BTV: Array, q_BTV: Array) -> Array:
    return _kl_forward(p_BTV, q_BTV)[0]


def _kl_forward(p_BTV: Array, q_BTV: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    p, q = _law(p_BTV), _law(q_BTV)
    kl_BT = _mean_log_ratio(p, p, q)
    return kl_BT, (p_BTV, q_BTV, kl_BT)


def _kl_backward(saved: tuple[Array, ...], cotangent_BT: Array) -> tuple[Array, Array]:
    """(p (log p - log q - KL), q - p), in closed form."""
    *logits, kl_BT = saved
    log_p_BTV, log_q_BTV = (of_BTV - (most_BT + norm_BT)[..., None] for of_BTV, most_BT, norm_BT in map(_law, logits))
    p_BTV = jnp.exp(log_p_BTV)
    d_p_BTV = jnp.where(p_BTV > 0, p_BTV * (log_p_BTV - log_q_BTV - kl_BT[..., None]), 0.0)
    d_q_BTV = jnp.exp(log_q_BTV) - p_BTV
    return cotangent_BT[..., None] * d_p_BTV, cotangent_BT[..., None] * d_q_BTV


_kl_of_logits.defvjp(_kl_forward, _kl_backward)


def _log_law(logits_BTV: Array) -> Array:
    return jax.nn.log_softmax(logits_BTV.astype(jnp.float32), axis=-1)


def _kl(log_p_BTV: Array, log_q_BTV: Array) -> Array:
    """Of normalised log-probabilities; 0 where p is 0 even if the logarithms are infinite (for the gradient too)."""
    p_BTV = jnp.exp(log_p_BTV)
    return jnp.sum(p_BTV * jnp.where(p_BTV > 0, log_p_BTV - log_q_BTV, 0.0), axis=-1)


DIVERGENCES: dict[str, Divergence] = {
    function.__name__: function
    for function in (
        forward_kl,
        reverse_kl,
        jensen_shannon,
        total_variation,
        negative_log_acceptance,
        hybrid_acceptance,
    )
}


@functools.cache
def find_divergence(name: str) -> Divergence:
    """The divergence of that name; "jensen_shannon:0.1" is the generalised one with beta 0.1. UserError otherwise."""
    name, _, beta = name.partition(":")
    if name not in DIVERGENCES:
        raise UserError(f'there is no divergence "{name}"{did_you_mean(name, DIVERGENCES)}')
    if not beta:
        return DIVERGENCES[name]
    try:
        number = float(beta)
    except ValueError:
        number = 0.0
    if name != "jensen_shannon" or not 0 < number < 1:
        raise UserError(f'"{name}:{beta}" is no divergence; only jensen_shannon takes a number, between 0 and 1')

    def generalised(draft_logits_BTV: Array, target_logits_BTV: Array) -> Array:
        return jensen_shannon(draft_logits_BTV, target_logits_BTV, number)

    generalised.__name__ = f"{name}:{number:g}"
    return generalised
