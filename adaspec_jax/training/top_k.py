"""A target known by its K likeliest tokens: what is kept of its law, and the forward KL from what is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_NO_TAIL = 1e-6  # what K rounded probabilities may miss of one without there being any other token


def top_k_law(logits_BTV: Array, k: int) -> tuple[Array, Array]:
    """(ids_BTK int32, log_probs_BTK float32) of the likeliest k tokens, likeliest first."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    most_BTK, ids_BTK = jax.lax.top_k(logits_BTV, k)
    return ids_BTK.astype(jnp.int32), most_BTK - jax.nn.logsumexp(logits_BTV, axis=-1, keepdims=True)


def top_k_forward_kl(draft_logits_BTV: Array, ids_BTK: Array, log_probs_BTK: Array) -> Array:
    """KL(target || draft) [B, T], nats, between laws on K + 1 events: the target's K likeliest tokens, and any other.

    What the normalised `log_probs_BTK` leave of the mass is the other event's. Merging events never raises a KL
    divergence, so this is a lower bound of `forward_kl`, equal at K = V; the shape of the target's tail is left out.
    """
    return _kl(draft_logits_BTV.astype(jnp.float32), ids_BTK, log_probs_BTK.astype(jnp.float32))


@jax.custom_vjp
def _kl(logits_BTV: Array, ids_BTK: Array, log_p_BTK: Array) -> Array:
    return _forward(logits_BTV, ids_BTK, log_p_BTK)[0]


def _forward(logits_BTV: Array, ids_BTK: Array, log_p_BTK: Array) -> tuple[Array, tuple[Array, ...]]:
    norm_BT1 = jax.nn.logsumexp(logits_BTV, axis=-1, keepdims=True)
    # Summed over the tail itself: one minus the head would keep no digits of a small one.
    tail_BTV = _with(jnp.exp(logits_BTV - norm_BT1), ids_BTK, jnp.zeros_like(log_p_BTK))
    log_tail_BT = jnp.log(jnp.maximum(jnp.sum(tail_BTV, axis=-1), jnp.finfo(jnp.float32).tiny))
    p_BTK = jnp.exp(log_p_BTK)
    p_tail_BT = _tail(p_BTK)
    log_q_BTK = jnp.take_along_axis(logits_BTV, ids_BTK, axis=-1) - norm_BT1
    head_BT = jnp.sum(jnp.where(p_BTK > 0, p_BTK * (log_p_BTK - log_q_BTK), 0.0), axis=-1)
    log_p_tail_BT = jnp.log(jnp.where(p_tail_BT > 0, p_tail_BT, 1.0))
    rest_BT = jnp.where(p_tail_BT > 0, p_tail_BT * (log_p_tail_BT - log_tail_BT), 0.0)
    return head_BT + rest_BT, (logits_BTV, norm_BT1, log_tail_BT, ids_BTK, p_BTK)


def _backward(saved: tuple[Array, ...], cotangent_BT: Array) -> tuple[Array, None, None]:
    """q - r, where r is the target on its K tokens and spreads the rest of its mass as the draft does."""
    logits_BTV, norm_BT1, log_tail_BT, ids_BTK, p_BTK = saved
    log_q_BTV, p_tail_BT = logits_BTV - norm_BT1, _tail(p_BTK)
    r_BTV = _with(p_tail_BT[..., None] * jnp.exp(log_q_BTV - log_tail_BT[..., None]), ids_BTK, p_BTK)
    total_BT = jnp.sum(p_BTK, axis=-1) + p_tail_BT  # one, but for rounding
    return cotangent_BT[..., None] * (total_BT[..., None] * jnp.exp(log_q_BTV) - r_BTV), None, None


_kl.defvjp(_forward, _backward)


def _tail(p_BTK: Array) -> Array:
    left_BT = 1 - jnp.sum(p_BTK, axis=-1)
    return jnp.where(left_BT > _NO_TAIL, left_BT, 0.0)


def _with(values_BTV: Array, ids_BTK: Array, new_BTK: Array) -> Array:
    return jnp.put_along_axis(values_BTV, ids_BTK, new_BTK, axis=-1, inplace=False)
