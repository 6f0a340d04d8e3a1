"""What a stage minimises: pure functions `(model, frozen, batch) -> (loss, metrics)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.devices.sharding import ROWS, constrain
from adaspec_jax.training.divergences import Divergence, forward_kl
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, total_at, values_at
from adaspec_jax.training.lessons import lesson_of
from adaspec_jax.training.selection import Rule, by_rows, top
from adaspec_jax.training.top_k import top_k_law


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """`loss_mask_BT[b, t]` marks that `tokens_BT[b, t]` is a supervised label, predicted from what precedes it.

    What frozen models give at the position that predicts the label (t - 1) may be stored beside it, and is computed
    where it is not: the target's final hidden state, or its K likeliest tokens and their log-probabilities; and the
    reference's divergence from the target, in the measure that the objective uses.
    """

    tokens_BT: Array
    loss_mask_BT: Array
    target_hidden_BTD: Array | None = None
    reference_divergence_BT: Array | None = None
    target_ids_BTK: Array | None = None
    target_log_probs_BTK: Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Now:
    """Where training stands: what a rule that changes with time, or draws, may depend on."""

    step: Array  # int32, batches seen
    key: Array  # of this step alone


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """The models an objective only reads; arguments of the step, never closures.

    Where a batch brings the target's hidden states, its output matrix is enough (`unembedding`). A target whose
    likeliest tokens it brings, and a reference whose divergence it brings, may be None. `base` is the model that
    low-rank adapters belong to; `now` is set by the training step.
    """

    target: Any = None
    reference: Any = None
    base: Any = None
    now: Now | None = None


Metrics = dict[str, Array]
Objective = Callable[[Any, Frozen, Batch], tuple[Array, Metrics]]
Features = Callable[[Any, Array], Array]  # (model, tokens_BT) -> hidden_BTD


def fine_tune(*, chunking: Chunking = DEFAULT, micro_batches: int = 1) -> Objective:
    """Mean cross-entropy (nats) of the labels. Metrics: tokens, accuracy.

    `micro_batches`, of every objective: rows go through the layers in so many parts, one after another, and the
    backward pass computes each part again. Losses, choices and gradients are those of the whole batch, memory is that
    of one part and of all final hidden states. Each row group of `chunking` must divide into them.
    """
    features = _in_parts(micro_batches, chunking)

    def per_token(model, hidden_GCD, labels_GC, frozen):
        logits_GCV = model.unembed(hidden_GCD)
        losses_GC = optax.losses.softmax_cross_entropy_with_integer_labels(logits_GCV, labels_GC)
        chosen_GC = jnp.take_along_axis(logits_GCV, labels_GC[..., None], axis=-1)[..., 0]
        return losses_GC, {"accuracy": chosen_GC == jnp.max(logits_GCV, axis=-1)}

    def objective(model, frozen: Frozen, batch: Batch):
        del frozen
        labels_BT, mask_BT = _labels(batch)
        hidden_BTD = features(model, batch.tokens_BT)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        total, values = total_at(mask_BT, per_token, model.unembedding(), hidden_BTD, labels_BT, None, **sizes)
        return total / _count(mask_BT), {"tokens": jnp.sum(mask_BT), "accuracy": _mean(values["accuracy"], mask_BT)}

    return objective


def distill(divergence: Divergence = forward_kl, *, chunking: Chunking = DEFAULT, micro_batches: int = 1) -> Objective:
    """Mean divergence from the target over all labels: AdaSPEC's reference stage, its DistillSpec baseline.

    (DistillSpec, arXiv 2310.08461, with the forward KL on fixed dataset answers.) Metrics: tokens, agreement.
    """
    per_token, features = _divergence_and_agreement(divergence), _in_parts(micro_batches, chunking)

    def objective(model, frozen: Frozen, batch: Batch):
        _, mask_BT = _labels(batch)
        hidden_BTD = features(model, batch.tokens_BT)
        taught = _taught(frozen.target, batch, features)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        total, values = total_at(mask_BT, per_token, model.unembedding(), hidden_BTD, taught, frozen.target, **sizes)
        return total / _count(mask_BT), {"tokens": jnp.sum(mask_BT), "agreement": _mean(values["agreement"], mask_BT)}

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
        ("shard"; the released code's per-device micro-batch), or over each row ("sequence").
      rule: which labels of such a set are kept; see `selection`.
      chunking: how much of the logits is held at once.
      micro_batches: parts of the batch whose activations are held at once; the choice is made over the whole batch.

    Schedules and random rules read `frozen.now`, which the training step sets; without it they see the beginning.
    Metrics: tokens, share_kept, kl_kept and kl_dropped (mean forward KL on each side), gap (mean), agreement.
    """
    if not callable(fraction) and not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    if normalize not in ("paper", "official"):
        raise ValueError(f'normalize must be "paper" or "official", not {normalize!r}')
    if scope not in ("global", "shard", "sequence"):
        raise ValueError(f'scope must be "global", "shard" or "sequence", not {scope!r}')
    if scope != "global":
        rule = by_rows(rule, shards if scope == "shard" else None)

    def select(gap_BT, mask_BT, now: Now | None):
        now = now or Now(jnp.zeros((), jnp.int32), jax.random.key(0))
        return rule(gap_BT, mask_BT, fraction(now.step) if callable(fraction) else fraction, now.key)

    per_token, features = _divergence_and_agreement(divergence), _in_parts(micro_batches, chunking)

    def objective(model, frozen: Frozen, batch: Batch):
        _, mask_BT = _labels(batch)
        hidden_BTD = features(model, batch.tokens_BT)
        taught = _taught(frozen.target, batch, features)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        still = jax.lax.stop_gradient(model.unembedding())

        def gap_and_more(operands):
            hidden_GCD, taught, shown = operands
            logits_GCV, lesson = still.unembed(hidden_GCD), lesson_of(frozen.target, taught)
            if batch.reference_divergence_BT is None:
                gap_GC = lesson.gap(divergence, logits_GCV, frozen.reference.unembed(shown))
            else:  # both divergences are sums of differences: small numbers, which keep their digits
                gap_GC = lesson.divergence(divergence, logits_GCV) - shown
            kl_GC, agreement_GC = lesson.divergence(forward_kl, logits_GCV), lesson.agrees(logits_GCV)
            return {"gap": gap_GC, "kl": kl_GC, "agreement": agreement_GC}

        shown = batch.reference_divergence_BT
        if shown is None:
            shown = jax.lax.stop_gradient(features(frozen.reference, batch.tokens_BT))
        values = values_at(mask_BT, gap_and_more, (hidden_BTD, taught, shown), **sizes)
        kept_BT = select(values["gap"], mask_BT, frozen.now)
        total, _ = total_at(kept_BT, per_token, model.unembedding(), hidden_BTD, taught, frozen.target, **sizes)
        return total / _count(kept_BT if normalize == "paper" else mask_BT), {
            "tokens": jnp.sum(mask_BT),
            "share_kept": _mean(kept_BT, mask_BT),
            "kl_kept": _mean(values["kl"], kept_BT),
            "kl_dropped": _mean(values["kl"], mask_BT & ~kept_BT),
            "gap": _mean(values["gap"], mask_BT),
            "agreement": _mean(values["agreement"], mask_BT),
        }

    return objective


def divergence_at_labels(divergence: Divergence, model, target, batch: Batch, *, chunking: Chunking = DEFAULT) -> Array:
    """[B, T]: of `model` from the target at the positions that predict labels, 0 elsewhere; carries no gradient."""
    _, mask_BT = _labels(batch)
    features = _in_parts(1, chunking)
    operands = (jax.lax.stop_gradient(features(model, batch.tokens_BT)), _taught(target, batch, features))

    def value(operands):
        hidden_GCD, taught = operands
        return {"divergence": lesson_of(target, taught).divergence(divergence, model.unembed(hidden_GCD))}

    sizes = {"vocab_size": _vocab_size(model, operands[0]), "chunking": chunking}
    return values_at(mask_BT, value, operands, **sizes)["divergence"]


def top_k_at_labels(target, batch: Batch, k: int, *, chunking: Chunking = DEFAULT) -> tuple[Array, Array]:
    """`top_k_law` of the target, (ids [B, T, K], log-probabilities [B, T, K]), where labels are predicted; else 0."""
    _, mask_BT = _labels(batch)
    hidden_BTD = jax.lax.stop_gradient(target.features(batch.tokens_BT)[0])

    def value(hidden_GCD):
        ids_GCK, log_probs_GCK = top_k_law(target.unembed(hidden_GCD), k)
        return {"ids": ids_GCK, "log_probs": log_probs_GCK}

    values = values_at(mask_BT, value, hidden_BTD, vocab_size=_vocab_size(target, hidden_BTD), chunking=chunking)
    return values["ids"], values["log_probs"]


def _divergence_and_agreement(divergence: Divergence):
    def per_token(model, hidden_GCD, taught, target):
        logits_GCV, lesson = model.unembed(hidden_GCD), lesson_of(target, taught)
        return lesson.divergence(divergence, logits_GCV), {"agreement": lesson.agrees(logits_GCV)}

    return per_token


def _labels(batch: Batch) -> tuple[Array, Array]:
    """The token after each position, and whether it is a label. The last position has none."""
    tokens_BT, mask_BT = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.loss_mask_BT, bool)
    return jnp.roll(tokens_BT, -1, axis=1), jnp.roll(mask_BT, -1, axis=1).at[:, -1].set(False)


def _taught(target, batch: Batch, features: Features) -> Array | tuple[Array, Array]:
    """What `lesson_of` takes: the target's likeliest tokens, or its final hidden states, stored or computed now."""
    if batch.target_ids_BTK is not None:
        return batch.target_ids_BTK, batch.target_log_probs_BTK
    stored = batch.target_hidden_BTD
    return jax.lax.stop_gradient(features(target, batch.tokens_BT) if stored is None else stored)


def _in_parts(micro_batches: int, chunking: Chunking) -> Features:
    """Final hidden states [B, T, D] of a model, computed for so many parts of the rows one after another.

    Each part has rows of every group, so that no row moves to another device.
    """
    groups = chunking.groups

    def features(model, tokens_BT: Array) -> Array:
        if micro_batches == 1:
            return model.features(tokens_BT)[0]
        batch, length = tokens_BT.shape
        if batch % (groups * micro_batches):
            parts = f"{micro_batches} micro-batches" + f" on each of {groups} groups of devices" * (groups > 1)
            raise ValueError(f"a batch of {batch} rows does not divide into {parts}")
        rows = batch // (groups * micro_batches)
        parts_MRT = jnp.asarray(tokens_BT).reshape(groups, micro_batches, rows, length).swapaxes(0, 1)
        parts_MRT = constrain(parts_MRT.reshape(micro_batches, groups * rows, length), None, ROWS, None)
        hidden_MRTD = jax.lax.map(jax.checkpoint(lambda part_RT: model.features(part_RT)[0]), parts_MRT)
        hidden = hidden_MRTD.reshape(micro_batches, groups, rows, length, -1).swapaxes(0, 1)
        return constrain(hidden.reshape(batch, length, -1), ROWS, None, None)

    return features


def _vocab_size(model, hidden_BTD: Array) -> int:
    return jax.eval_shape(model.unembed, hidden_BTD).shape[-1]


def _count(mask_BT: Array) -> Array:
    return jnp.maximum(jnp.sum(mask_BT), 1)


def _mean(values_BT: Array, mask_BT: Array) -> Array:
    return jnp.sum(jnp.where(mask_BT, values_BT, 0.0), dtype=jnp.float32) / _count(mask_BT)
