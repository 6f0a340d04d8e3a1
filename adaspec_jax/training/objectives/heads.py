"""What heads on a target's features minimise: at every guess of theirs the target's law, or the text's own tokens.

A head guesses several tokens at every position (`models.heads.Term`); each guess is a label like any other, with the
target's law at the place that predicts it. Selection is AdaSPEC's, for each of a head's terms apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.models.heads import Head, Term, features_of, following
from adaspec_jax.training.divergences import Divergence, forward_kl, gap
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, total_at, values_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Objective
from adaspec_jax.training.objectives.distill import selecting
from adaspec_jax.training.objectives.labels import count_of, in_parts, labels_of, mean_over
from adaspec_jax.training.selection import Rule, top

_LEAST = -1e9  # the gap of a label that there is nothing to learn of: kept last, and finite


def distill_head(
    divergence: Divergence = forward_kl,
    *,
    fraction: float | Callable[[Array], Array] | None = None,
    normalize: Literal["paper", "official"] = "paper",
    scope: Literal["global", "shard", "sequence"] = "global",
    shards: int = 1,
    rule: Rule = top,
    masks: Literal["all", "laws"] = "all",
    chunking: Chunking = DEFAULT,
    micro_batches: int = 1,
) -> Objective:
    """The weighted sum over a head's terms of mean losses over labels; those selected, where a `fraction` is given.

    A term's loss is `laws` times the divergence of the head from the target, over the tokens it guesses among (or, of a
    `hard` kind, the cross entropy of the text's tokens), and `features` times the smooth L1 distance of its hidden
    state from the target's, averaged over features: EAGLE's (arXiv 2401.15077). A label whose likeliest token under the
    target is none that the head guesses among has no law to learn, and counts in the mean (2503.01840's code).

    Args:
      divergence: from target to head, and in the gap.
      fraction: the share of labels that is kept, as in `selective_distill`; None: all, and no reference is read.
      normalize, scope, shards, rule: as in `selective_distill`.
      masks: whether the selection masks all of a term's loss, or its law's part alone.
      chunking, micro_batches: as everywhere.

    `frozen.target` needs embeddings and output matrix alone where the batch brings `target_features_BTF`, and its last
    hidden states. Metrics: tokens, agreement and acceptance (mean of sum_x min(p, q)) of the first term, agreement_last
    of the last; with a selection share_kept, kl_kept, kl_dropped and gap, of the first term.
    """
    if normalize not in ("paper", "official"):
        raise ValueError(f'normalize must be "paper" or "official", not {normalize!r}')
    if masks not in ("all", "laws"):
        raise ValueError(f'masks must be "all" or "laws", not {masks!r}')
    select = None if fraction is None else selecting(rule, fraction, scope, shards)

    def objective(head: Head, frozen: Frozen, batch: Batch):
        kind, seen = head.config, _seen(head, frozen, batch)
        guessed = _guessed(head, frozen, batch, seen.features_BTF, chunking, micro_batches)
        shown = None
        if select is not None:
            shown = _guessed(frozen.reference, frozen, batch, seen.features_BTF, chunking, micro_batches)
        loss, metrics = jnp.zeros((), jnp.float32), {}
        for i, (term, hidden_BTD) in enumerate(zip(kind.terms, guessed, strict=True)):
            at = _label_of(seen, batch, term)
            kept_BT, values = at.mask_BT, None
            if select is not None:
                values = _measured(divergence, i, head, frozen, hidden_BTD, shown[i], at, chunking)
                kept_BT = select(values["gap"], at.mask_BT, frozen.now, batch.segments_BT)
            count = count_of(kept_BT if normalize == "paper" else at.mask_BT)
            total, said = _law_total(divergence, i, head, frozen, hidden_BTD, at, kept_BT, chunking)
            added = kind.laws * total / count
            if kind.features:
                wide_BT = kept_BT if masks == "all" else at.mask_BT
                wide = count if masks == "all" else count_of(at.mask_BT)
                added += kind.features * _distance(hidden_BTD, at.hidden_BTD, wide_BT) / wide
            loss += term.weight * added
            metrics |= _metrics(i, len(guessed), at, said if values is None else values, kept_BT)
        return loss, metrics

    return objective


class _Seen(NamedTuple):
    """What the target makes of a batch."""

    features_BTF: Array
    hidden_BTD: Array  # after the final norm
    labels_BT: Array
    mask_BT: Array


class _Label(NamedTuple):
    """What a term guesses at every position: the token, whether it is a label, and the target's hidden state there."""

    tokens_BT: Array
    mask_BT: Array
    hidden_BTD: Array


def _seen(head: Head, frozen: Frozen, batch: Batch) -> _Seen:
    layers, target = head.config.layers, frozen.target
    features_BTF = batch.target_features_BTF
    if features_BTF is None:
        wanted = layers if layers[-1] == -1 else (*layers, -1)
        features_BTF = features_of(target, batch.tokens_BT, wanted, batch.segments_BT)
    size = head.config.sizes.hidden_size
    hidden_BTD = features_BTF[..., -size:] if batch.target_hidden_BTD is None else batch.target_hidden_BTD
    return _Seen(features_BTF[..., : len(layers) * size], hidden_BTD, *labels_of(batch))


def _guessed(head: Head, frozen: Frozen, batch: Batch, features_BTF, chunking: Chunking, parts: int):
    """The head's hidden states for each of its terms."""
    if head.config.noise and frozen.now is not None:
        length, key = features_BTF.shape[1], jax.random.fold_in(frozen.now.key, 0)
        uniform_BTF = jax.random.uniform(key, features_BTF.shape, jnp.float32, -0.5, 0.5)
        features_BTF += (uniform_BTF * head.config.noise * 512 / length).astype(features_BTF.dtype)

    def guessed(head, given):
        return head.guessed(frozen.target, *given)

    given = (batch.tokens_BT, features_BTF, batch.segments_BT)
    return in_parts(guessed, head, given, micro_batches=parts, chunking=chunking)


def _label_of(seen: _Seen, batch: Batch, term: Term) -> _Label:
    length, shift = seen.mask_BT.shape[1], term.shift
    mask_BT = following(seen.mask_BT, shift) & (jnp.arange(length) < length - shift)[None]
    if batch.segments_BT is not None:
        mask_BT &= following(batch.segments_BT, shift) == batch.segments_BT
    return _Label(following(seen.labels_BT, shift), mask_BT, following(seen.hidden_BTD, shift))


def _law_total(divergence, i: int, head: Head, frozen: Frozen, hidden_BTD, at: _Label, kept_BT, chunking):
    """The sum over the kept labels, and what of them goes into metrics."""

    def per_token(params, hidden_GCD, operands, frozen):
        (taught_GCD, labels_GC), (tables, target) = operands, frozen
        part = replace(head, params=params, tables=tables)
        logits, law = _pair(i, part, target, hidden_GCD, taught_GCD)
        said = _said(part, logits, law)
        if part.config.hard:
            return _cross_entropy(part, logits, labels_GC), said
        return jnp.where(_inside(part, law), divergence(logits, part.config.among(part, law)), 0.0), said

    operands, beside = (at.hidden_BTD, at.tokens_BT), (head.tables, frozen.target)
    reads = head.config.outward(head.params, i)
    return total_at(kept_BT, per_token, reads, hidden_BTD, operands, beside, **_sizes(frozen, at, chunking))


def _measured(divergence, i: int, head: Head, frozen: Frozen, hidden_BTD, shown_BTD, at: _Label, chunking):
    """{"gap", "kl", "agreement", "acceptance"} at every label, without a gradient."""
    head = jax.lax.stop_gradient(head)

    def values(operands):
        hidden_GCD, shown_GCD, taught_GCD, labels_GC = operands
        logits, law = _pair(i, head, frozen.target, hidden_GCD, taught_GCD)
        reference = frozen.reference.logits(frozen.target, shown_GCD, i)
        among = head.config.among(head, law)
        if head.config.hard:
            lag = _cross_entropy(head, logits, labels_GC) - _cross_entropy(head, reference, labels_GC)
        else:
            lag = jnp.where(_inside(head, law), gap(divergence, logits, reference, among), _LEAST)
        return {"gap": lag, "kl": forward_kl(logits, among), **_said(head, logits, law)}

    operands = (hidden_BTD, shown_BTD, at.hidden_BTD, at.tokens_BT)
    return values_at(at.mask_BT, values, operands, **_sizes(frozen, at, chunking))


def _sizes(frozen: Frozen, at: _Label, chunking: Chunking) -> dict[str, Any]:
    vocab_size = jax.eval_shape(lambda: frozen.target.unembed(at.hidden_BTD)).shape[-1]
    return {"vocab_size": vocab_size, "chunking": chunking}


def _pair(i: int, head: Head, target, hidden, taught) -> tuple[Array, Array]:
    """The head's logits [.., V'] and the target's [.., V]."""
    return head.logits(target, hidden, i), target.unembed(taught)


def _inside(head: Head, law: Array) -> Array | bool:
    """Whether the target's likeliest token is one that the head guesses among."""
    return jnp.max(head.config.among(head, law), axis=-1) >= jnp.max(law, axis=-1)


def _cross_entropy(head: Head, logits: Array, labels: Array) -> Array:
    wide = head.config.spread(head, logits)
    return optax.losses.softmax_cross_entropy_with_integer_labels(wide, labels)


def _said(head: Head, logits: Array, law: Array) -> dict[str, Array]:
    """Whether the likeliest tokens are the same, and sum_x min(p, q)."""
    wide = head.config.spread(head, logits)
    best = law == jnp.max(law, axis=-1, keepdims=True)
    agreement = jnp.max(jnp.where(best, wide, -jnp.inf), axis=-1) == jnp.max(wide, axis=-1)
    overlap = jnp.sum(jnp.minimum(jax.nn.softmax(law), jax.nn.softmax(wide)), axis=-1)
    return {"agreement": agreement, "acceptance": overlap}


def _distance(hidden_BTD: Array, taught_BTD: Array, mask_BT: Array) -> Array:
    """The sum over labels of the smooth L1 distance, averaged over features."""
    each_BTD = optax.losses.huber_loss(hidden_BTD.astype(jnp.float32), taught_BTD.astype(jnp.float32))
    return jnp.sum(jnp.where(mask_BT, jnp.mean(each_BTD, axis=-1), 0.0))


def _metrics(i: int, count: int, at: _Label, values, kept_BT) -> dict[str, Array]:
    where_BT = kept_BT if "gap" not in values else at.mask_BT
    found = {}
    if i == 0:
        found = {"tokens": jnp.sum(at.mask_BT)}
        found |= {name: mean_over(values[name], where_BT) for name in ("agreement", "acceptance")}
    if i == 0 and "gap" in values:
        found |= {
            "share_kept": mean_over(kept_BT, at.mask_BT),
            "kl_kept": mean_over(values["kl"], kept_BT),
            "kl_dropped": mean_over(values["kl"], at.mask_BT & ~kept_BT),
            "gap": mean_over(values["gap"], at.mask_BT & (values["gap"] > _LEAST)),
        }
    if i == count - 1:
        found["agreement_last"] = mean_over(values["agreement"], where_BT)
    return found
