"""What a stage minimises: pure functions `(model, frozen, batch) -> (loss, metrics)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.training.divergences import Divergence, forward_kl, gap
from adaspec_jax.training.selection import select_top_fraction


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """`loss_mask_BT[b, t]` marks that `tokens_BT[b, t]` is a supervised label, predicted from what precedes it."""

    tokens_BT: Array
    loss_mask_BT: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """The models an objective only reads; arguments of the step, never closures."""

    target: Any = None
    reference: Any = None


Metrics = dict[str, Array]
Objective = Callable[[Any, Frozen, Batch], tuple[Array, Metrics]]


def fine_tune() -> Objective:
    """Mean cross-entropy (nats) of the labels. Metrics: tokens, accuracy."""

    def objective(model, frozen: Frozen, batch: Batch):
        del frozen
        logits_BTV, labels_BT, mask_BT = _predictions(model, batch)
        losses_BT = optax.losses.softmax_cross_entropy_with_integer_labels(logits_BTV.astype(jnp.float32), labels_BT)
        hits_BT = jnp.argmax(logits_BTV, axis=-1) == labels_BT
        return _mean(losses_BT, mask_BT), {"tokens": jnp.sum(mask_BT), "accuracy": _mean(hits_BT, mask_BT)}

    return objective


def distill(divergence: Divergence = forward_kl) -> Objective:
    """Mean divergence from the target over all labels: AdaSPEC's reference stage, its DistillSpec baseline.

    (DistillSpec, arXiv 2310.08461, with the forward KL on fixed dataset answers.) Metrics: tokens, agreement.
    """

    def objective(model, frozen: Frozen, batch: Batch):
        logits_BTV, _, mask_BT = _predictions(model, batch)
        target_BTV = _frozen_logits(frozen.target, batch)
        losses_BT = divergence(logits_BTV, target_BTV)
        return _mean(losses_BT, mask_BT), {
            "tokens": jnp.sum(mask_BT),
            "agreement": _agreement(logits_BTV, target_BTV, mask_BT),
        }

    return objective


def selective_distill(
    divergence: Divergence = forward_kl,
    *,
    fraction: float = 0.4,
    normalize: Literal["paper", "official"] = "paper",
    scope: Literal["global", "shard"] = "global",
    shards: int = 1,
) -> Objective:
    """AdaSPEC: mean divergence over the `fraction` of labels where the draft lags most behind the reference.

    (arXiv 2510.19779, eq. 8-10.) The choice is made anew at every step and carries no gradient.

    Args:
      divergence: from target to draft, and in the gap.
      fraction: the paper's k, in (0, 1].
      normalize: "paper" divides by the number of selected labels, "official" (the released code) by that of all labels.
      scope: the quantile is taken over the whole batch ("global"), or apart over each of `shards` equal runs of rows
        ("shard"; the released code's per-device micro-batch).

    Metrics: tokens, share_kept, kl_kept and kl_dropped (mean forward KL on each side), gap (mean), agreement.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    if normalize not in ("paper", "official"):
        raise ValueError(f'normalize must be "paper" or "official", not {normalize!r}')
    if scope not in ("global", "shard"):
        raise ValueError(f'scope must be "global" or "shard", not {scope!r}')

    def select(gap_BT, mask_BT):
        if scope == "global" or shards == 1:
            return select_top_fraction(gap_BT, mask_BT, fraction)
        batch = gap_BT.shape[0]
        if batch % shards:
            raise ValueError(f"a batch of {batch} rows does not divide into {shards} selection shards")
        split = (shards, batch // shards, -1)
        by_shard = jax.vmap(lambda gap_BT, mask_BT: select_top_fraction(gap_BT, mask_BT, fraction))
        return by_shard(gap_BT.reshape(split), mask_BT.reshape(split)).reshape(mask_BT.shape)

    def objective(model, frozen: Frozen, batch: Batch):
        logits_BTV, _, mask_BT = _predictions(model, batch)
        target_BTV = _frozen_logits(frozen.target, batch)
        reference_BTV = _frozen_logits(frozen.reference, batch)
        losses_BT = divergence(logits_BTV, target_BTV)
        gap_BT = jax.lax.stop_gradient(gap(divergence, logits_BTV, reference_BTV, target_BTV))
        kept_BT = select(gap_BT, mask_BT)
        kl_BT = jax.lax.stop_gradient(forward_kl(logits_BTV, target_BTV))
        loss = _mean(losses_BT, kept_BT)
        if normalize == "official":
            loss = _total(losses_BT, kept_BT) / jnp.maximum(jnp.sum(mask_BT), 1)
        return loss, {
            "tokens": jnp.sum(mask_BT),
            "share_kept": _mean(kept_BT, mask_BT),
            "kl_kept": _mean(kl_BT, kept_BT),
            "kl_dropped": _mean(kl_BT, mask_BT & ~kept_BT),
            "gap": _mean(gap_BT, mask_BT),
            "agreement": _agreement(logits_BTV, target_BTV, mask_BT),
        }

    return objective


def _predictions(model, batch: Batch) -> tuple[Array, Array, Array]:
    """Logits that predict tokens 1.., those tokens, and which of them are labels."""
    logits_BTV, _ = model(batch.tokens_BT)
    return logits_BTV[:, :-1], batch.tokens_BT[:, 1:], batch.loss_mask_BT[:, 1:].astype(bool)


def _frozen_logits(model, batch: Batch) -> Array:
    return jax.lax.stop_gradient(model(batch.tokens_BT)[0][:, :-1])


def _total(values_BT: Array, mask_BT: Array) -> Array:
    return jnp.sum(jnp.where(mask_BT, values_BT, 0.0), dtype=jnp.float32)


def _mean(values_BT: Array, mask_BT: Array) -> Array:
    return _total(values_BT, mask_BT) / jnp.maximum(jnp.sum(mask_BT), 1)


def _agreement(logits_BTV: Array, target_BTV: Array, mask_BT: Array) -> Array:
    return _mean(jnp.argmax(logits_BTV, axis=-1) == jnp.argmax(target_BTV, axis=-1), mask_BT)
