"""What a stage minimises: pure functions `(model, frozen, batch) -> (loss, metrics)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.training.divergences import Divergence, forward_kl
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Loss, Sizes, Values, total_at, values_at
from adaspec_jax.training.lessons import lesson_of
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Now, Objective
from adaspec_jax.training.objectives.labels import (
    Features,
    by_class,
    count_of,
    features_in_parts,
    labels_of,
    mean_over,
    taught_of,
    vocab_size_of,
)
from adaspec_jax.training.selection import Rule, by_refusal, by_rows, by_segments, top

Select = Callable[[Values, Array, Now | None, Array | None], Array]  # see `selecting`


def distill(divergence: Divergence = forward_kl, *, chunking: Chunking = DEFAULT, micro_batches: int = 1) -> Objective:
    """Mean divergence from the target over all labels: AdaSPEC's reference stage, its DistillSpec baseline.

    (DistillSpec, arXiv 2310.08461, with the forward KL on fixed dataset answers.) Metrics: tokens, agreement.
    """
    per_token, features = _divergence_and_agreement(divergence), features_in_parts(micro_batches, chunking)

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        mask_BT, hidden_BTD, taught, sizes = _given(model, frozen.target, batch, features, chunking)
        total, values = total_at(mask_BT, per_token, model.unembedding(), hidden_BTD, taught, frozen.target, **sizes)
        return total / count_of(mask_BT), {
            "tokens": jnp.sum(mask_BT),
            "agreement": mean_over(values["agreement"], mask_BT),
        }

    return objective


def selective_distill(
    divergence: Divergence = forward_kl,
    *,
    fraction: float | Callable[[Array], Array] = 0.4,
    normalize: Literal["paper", "official"] = "paper",
    scope: Literal["global", "shard", "sequence"] = "global",
    shards: int = 1,
    rule: Rule = top,
    chunking: Chunking = DEFAULT,
    micro_batches: int = 1,
) -> Objective:
    """AdaSPEC: mean divergence over the `fraction` of labels where the draft lags most behind the reference.

    (arXiv 2510.19779, eq. 8-10.) The choice is made anew at every step and carries no gradient. Two passes over the
    labels: scalars of all, then loss and gradient of the selected ones alone.

    Args:
      divergence: from target to draft, and in the gap.
      fraction: the paper's k, in (0, 1]; or a schedule, k by the number of batches seen.
      normalize: "paper" divides by the number of selected labels, "official" (the released code) by that of all labels.
      scope: the quantile is taken over the whole batch ("global"), or apart over each of `shards` equal runs of rows
        ("shard"; the released code's per-device micro-batch), or over each row, or example of it ("sequence").
      rule: which labels of such a set are kept; see `selection`.
      chunking: how much of the logits is held at once.
      micro_batches: parts of the batch whose activations are held at once; the choice is made over the whole batch.

    Schedules and random rules read `frozen.now`, which the training step sets; without it they see the beginning.
    Metrics: tokens, share_kept, kl_kept and kl_dropped (mean forward KL on each side), gap (mean), agreement;
    where `frozen.classes_V` is given, labels_by_class and kept_by_class.
    """
    if normalize not in ("paper", "official"):
        raise ValueError(f'normalize must be "paper" or "official", not {normalize!r}')
    select = selecting(rule, fraction, scope, shards)
    per_token, features = _divergence_and_agreement(divergence), features_in_parts(micro_batches, chunking)

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        mask_BT, hidden_BTD, taught, sizes = _given(model, frozen.target, batch, features, chunking)
        with jax.named_scope("select"):
            measured = _gap_and_more(divergence, jax.lax.stop_gradient(model.unembedding()), frozen, batch)
            values = values_at(mask_BT, measured, (hidden_BTD, taught, _shown(frozen, batch, features)), **sizes)
            kept_BT = select(values, mask_BT, frozen.now, batch.segments_BT)
        total, _ = total_at(kept_BT, per_token, model.unembedding(), hidden_BTD, taught, frozen.target, **sizes)
        return total / count_of(kept_BT if normalize == "paper" else mask_BT), {
            "tokens": jnp.sum(mask_BT),
            "share_kept": mean_over(kept_BT, mask_BT),
            "kl_kept": mean_over(values["kl"], kept_BT),
            "kl_dropped": mean_over(values["kl"], mask_BT & ~kept_BT),
            "gap": mean_over(values["gap"], mask_BT),
            "agreement": mean_over(values["agreement"], mask_BT),
            **by_class(frozen.classes_V, batch, labels=mask_BT, kept=kept_BT),
        }

    return objective


def selecting(rule: Rule, fraction: float | Callable[[Array], Array], scope: str, shards: int) -> Select:
    """`({"gap", "agreement"}, mask_BT, now, segments_BT or None) -> mask_BT` of the labels that are kept."""
    if not callable(fraction) and not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    if scope not in ("global", "shard", "sequence"):
        raise ValueError(f'scope must be "global", "shard" or "sequence", not {scope!r}')

    def select(values: Values, mask_BT: Array, now: Now | None, segments_BT: Array | None) -> Array:
        now = now or Now(jnp.zeros((), jnp.int32), jax.random.key(0))
        of_scope = rule
        if scope == "sequence" and segments_BT is not None:
            of_scope = by_segments(rule, segments_BT)
        elif scope != "global":
            of_scope = by_rows(rule, shards if scope == "shard" else None)
        told_BT = 1 - values["agreement"] if by_refusal(rule) else values["gap"]
        return of_scope(told_BT, mask_BT, fraction(now.step) if callable(fraction) else fraction, now.key)

    return select


def _given(
    model: Any, target: Any, batch: Batch, features: Features, chunking: Chunking
) -> tuple[Array, Array, Any, Sizes]:
    """(mask_BT of the labels, the model's hidden_BTD, what the target says there, sizes): what a distillation reads."""
    _, mask_BT = labels_of(batch)
    hidden_BTD = features(model, batch)
    sizes: Sizes = {"vocab_size": vocab_size_of(model, hidden_BTD), "chunking": chunking}
    return mask_BT, hidden_BTD, taught_of(target, batch, features), sizes


def _shown(frozen: Frozen, batch: Batch, features: Features) -> Array:
    """Of the reference at each position: its stored divergence from the target [B, T], else its hidden state."""
    if batch.reference_divergence_BT is not None:
        return batch.reference_divergence_BT
    return jax.lax.stop_gradient(features(frozen.reference, batch))


def _gap_and_more(divergence: Divergence, model: Any, frozen: Frozen, batch: Batch) -> Callable[[Any], Values]:
    """`(hidden, taught, shown) -> {"gap", "kl", "agreement"}` of a chunk of labels."""

    def values(operands: Any) -> Values:
        hidden_GCD, taught, shown = operands
        logits_GCV, lesson = model.unembed(hidden_GCD), lesson_of(frozen.target, taught)
        if batch.reference_divergence_BT is None:
            gap_GC = lesson.gap(divergence, logits_GCV, frozen.reference.unembed(shown))
        else:  # both divergences are sums of differences: small numbers, which keep their digits
            gap_GC = lesson.divergence(divergence, logits_GCV) - shown
        kl_GC, agreement_GC = lesson.divergence(forward_kl, logits_GCV), lesson.agrees(logits_GCV)
        return {"gap": gap_GC, "kl": kl_GC, "agreement": agreement_GC}

    return values


def _divergence_and_agreement(divergence: Divergence) -> Loss:
    def per_token(model: Any, hidden_GCD: Array, taught: Any, target: Any) -> tuple[Array, Values]:
        logits_GCV, lesson = model.unembed(hidden_GCD), lesson_of(target, taught)
        return lesson.divergence(divergence, logits_GCV), {"agreement": lesson.agrees(logits_GCV)}

    return per_token
