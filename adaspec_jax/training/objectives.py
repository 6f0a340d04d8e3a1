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
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, total_at, values_at
from adaspec_jax.training.selection import select_top_fraction
from adaspec_jax.training.top_k import top_k_forward_kl, top_k_law


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
class Frozen:
    """The models an objective only reads; arguments of the step, never closures.

    Where a batch brings the target's hidden states, its output matrix is enough (`unembedding`). A target whose
    likeliest tokens it brings, and a reference whose divergence it brings, may be None.
    """

    target: Any = None
    reference: Any = None


Metrics = dict[str, Array]
Objective = Callable[[Any, Frozen, Batch], tuple[Array, Metrics]]


def fine_tune(*, chunking: Chunking = DEFAULT) -> Objective:
    """Mean cross-entropy (nats) of the labels. Metrics: tokens, accuracy."""

    def per_token(model, hidden_GCD, labels_GC, frozen):
        logits_GCV = model.unembed(hidden_GCD)
        losses_GC = optax.losses.softmax_cross_entropy_with_integer_labels(logits_GCV, labels_GC)
        chosen_GC = jnp.take_along_axis(logits_GCV, labels_GC[..., None], axis=-1)[..., 0]
        return losses_GC, {"accuracy": chosen_GC == jnp.max(logits_GCV, axis=-1)}

    def objective(model, frozen: Frozen, batch: Batch):
        del frozen
        labels_BT, mask_BT = _labels(batch)
        hidden_BTD, _ = model.features(batch.tokens_BT)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        total, values = total_at(mask_BT, per_token, model, hidden_BTD, labels_BT, None, **sizes)
        return total / _count(mask_BT), {"tokens": jnp.sum(mask_BT), "accuracy": _mean(values["accuracy"], mask_BT)}

    return objective


def distill(divergence: Divergence = forward_kl, *, chunking: Chunking = DEFAULT) -> Objective:
    """Mean divergence from the target over all labels: AdaSPEC's reference stage, its DistillSpec baseline.

    (DistillSpec, arXiv 2310.08461, with the forward KL on fixed dataset answers.) Metrics: tokens, agreement.
    """
    per_token = _divergence_and_agreement(divergence)

    def objective(model, frozen: Frozen, batch: Batch):
        _, mask_BT = _labels(batch)
        hidden_BTD, _ = model.features(batch.tokens_BT)
        taught = _taught(frozen.target, batch)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        total, values = total_at(mask_BT, per_token, model, hidden_BTD, taught, frozen.target, **sizes)
        return total / _count(mask_BT), {"tokens": jnp.sum(mask_BT), "agreement": _mean(values["agreement"], mask_BT)}

    return objective


def selective_distill(
    divergence: Divergence = forward_kl,
    *,
    fraction: float = 0.4,
    normalize: Literal["paper", "official"] = "paper",
    scope: Literal["global", "shard"] = "global",
    shards: int = 1,
    chunking: Chunking = DEFAULT,
) -> Objective:
    """AdaSPEC: mean divergence over the `fraction` of labels where the draft lags most behind the reference.

    (arXiv 2510.19779, eq. 8-10.) The choice is made anew at every step and carries no gradient. Two passes over the
    labels: scalars of all, then loss and gradient of the selected ones alone.

    Args:
      divergence: from target to draft, and in the gap.
      fraction: the paper's k, in (0, 1].
      normalize: "paper" divides by the number of selected labels, "official" (the released code) by that of all labels.
      scope: the quantile is taken over the whole batch ("global"), or apart over each of `shards` equal runs of rows
        ("shard"; the released code's per-device micro-batch).
      chunking: how much of the logits is held at once.

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

    per_token = _divergence_and_agreement(divergence)

    def objective(model, frozen: Frozen, batch: Batch):
        _, mask_BT = _labels(batch)
        hidden_BTD, _ = model.features(batch.tokens_BT)
        taught = _taught(frozen.target, batch)
        sizes = {"vocab_size": _vocab_size(model, hidden_BTD), "chunking": chunking}
        still = jax.lax.stop_gradient(model)

        def gap_and_more(operands):
            hidden_GCD, taught, shown = operands
            logits_GCV, lesson = still.unembed(hidden_GCD), _lesson(frozen.target, taught)
            if batch.reference_divergence_BT is None:
                gap_GC = lesson.gap(divergence, logits_GCV, frozen.reference.unembed(shown))
            else:  # both divergences are sums of differences: small numbers, which keep their digits
                gap_GC = lesson.divergence(divergence, logits_GCV) - shown
            kl_GC, agreement_GC = lesson.divergence(forward_kl, logits_GCV), lesson.agrees(logits_GCV)
            return {"gap": gap_GC, "kl": kl_GC, "agreement": agreement_GC}

        shown = batch.reference_divergence_BT
        if shown is None:
            shown = _frozen_features(frozen.reference, batch)
        values = values_at(mask_BT, gap_and_more, (hidden_BTD, taught, shown), **sizes)
        kept_BT = select(values["gap"], mask_BT)
        total, _ = total_at(kept_BT, per_token, model, hidden_BTD, taught, frozen.target, **sizes)
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
    operands = (_frozen_features(model, batch), _taught(target, batch))

    def value(operands):
        hidden_GCD, taught = operands
        return {"divergence": _lesson(target, taught).divergence(divergence, model.unembed(hidden_GCD))}

    sizes = {"vocab_size": _vocab_size(model, operands[0]), "chunking": chunking}
    return values_at(mask_BT, value, operands, **sizes)["divergence"]


def top_k_at_labels(target, batch: Batch, k: int, *, chunking: Chunking = DEFAULT) -> tuple[Array, Array]:
    """`top_k_law` of the target, (ids [B, T, K], log-probabilities [B, T, K]), where labels are predicted; else 0."""
    _, mask_BT = _labels(batch)
    hidden_BTD = _frozen_features(target, batch)

    def value(hidden_GCD):
        ids_GCK, log_probs_GCK = top_k_law(target.unembed(hidden_GCD), k)
        return {"ids": ids_GCK, "log_probs": log_probs_GCK}

    values = values_at(mask_BT, value, hidden_BTD, vocab_size=_vocab_size(target, hidden_BTD), chunking=chunking)
    return values["ids"], values["log_probs"]


def _divergence_and_agreement(divergence: Divergence):
    def per_token(model, hidden_GCD, taught, target):
        logits_GCV, lesson = model.unembed(hidden_GCD), _lesson(target, taught)
        return lesson.divergence(divergence, logits_GCV), {"agreement": lesson.agrees(logits_GCV)}

    return per_token


class _WholeLaw:
    """A target by its logits: any divergence."""

    def __init__(self, logits_GCV: Array) -> None:
        self._logits_GCV = logits_GCV

    def divergence(self, divergence: Divergence, logits_GCV: Array) -> Array:
        return divergence(logits_GCV, self._logits_GCV)

    def gap(self, divergence: Divergence, logits_GCV: Array, reference_GCV: Array) -> Array:
        return gap(divergence, logits_GCV, reference_GCV, self._logits_GCV)

    def agrees(self, logits_GCV: Array) -> Array:
        """Whether a likeliest token of the target is one of the model's: `argmax` equality, as XLA:CPU does it fast."""
        best = self._logits_GCV == jnp.max(self._logits_GCV, axis=-1, keepdims=True)
        return jnp.max(jnp.where(best, logits_GCV, -jnp.inf), axis=-1) == jnp.max(logits_GCV, axis=-1)


class _LikeliestTokens:
    """A target by its K likeliest tokens: the forward KL alone."""

    def __init__(self, ids_GCK: Array, log_probs_GCK: Array) -> None:
        self._law = ids_GCK, log_probs_GCK

    def divergence(self, divergence: Divergence, logits_GCV: Array) -> Array:
        if divergence is not forward_kl:
            raise ValueError(f"{divergence.__name__} needs the target's whole law, not its likeliest tokens")
        return top_k_forward_kl(logits_GCV, *self._law)

    def gap(self, divergence: Divergence, logits_GCV: Array, reference_GCV: Array) -> Array:
        return self.divergence(divergence, logits_GCV) - self.divergence(divergence, reference_GCV)

    def agrees(self, logits_GCV: Array) -> Array:
        best_GC1 = self._law[0][..., :1]
        return jnp.take_along_axis(logits_GCV, best_GC1, axis=-1)[..., 0] == jnp.max(logits_GCV, axis=-1)


def _lesson(target, taught) -> _WholeLaw | _LikeliestTokens:
    return _LikeliestTokens(*taught) if isinstance(taught, tuple) else _WholeLaw(target.unembed(taught))


def _labels(batch: Batch) -> tuple[Array, Array]:
    """The token after each position, and whether it is a label. The last position has none."""
    tokens_BT, mask_BT = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.loss_mask_BT, bool)
    return jnp.roll(tokens_BT, -1, axis=1), jnp.roll(mask_BT, -1, axis=1).at[:, -1].set(False)


def _taught(target, batch: Batch) -> Array | tuple[Array, Array]:
    """What `_lesson` takes: the target's likeliest tokens, or its final hidden states, stored or computed now."""
    if batch.target_ids_BTK is not None:
        return batch.target_ids_BTK, batch.target_log_probs_BTK
    stored = batch.target_hidden_BTD
    return _frozen_features(target, batch) if stored is None else jax.lax.stop_gradient(stored)


def _frozen_features(model, batch: Batch) -> Array:
    return jax.lax.stop_gradient(model.features(batch.tokens_BT)[0])


def _vocab_size(model, hidden_BTD: Array) -> int:
    return jax.eval_shape(model.unembed, hidden_BTD).shape[-1]


def _count(mask_BT: Array) -> Array:
    return jnp.maximum(jnp.sum(mask_BT), 1)


def _mean(values_BT: Array, mask_BT: Array) -> Array:
    return jnp.sum(jnp.where(mask_BT, values_BT, 0.0), dtype=jnp.float32) / _count(mask_BT)
