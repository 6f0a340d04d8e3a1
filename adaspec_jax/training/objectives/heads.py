"""What heads on a target's features minimise: at every guess of theirs the target's law, or the text's own tokens.

A head guesses several tokens at every position (`models.heads.Term`), or at some that its kind draws; each guess is a
label like any other, with the target's law at the place that predicts it. Selection is AdaSPEC's, for each of a head's
terms apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.models.heads import Head, Kind
from adaspec_jax.training.divergences import Divergence, forward_kl, gap
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, total_at, values_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Objective
from adaspec_jax.training.objectives.distill import selecting
from adaspec_jax.training.objectives.frames import misalignment
from adaspec_jax.training.objectives.head_labels import Labels, guessed, labels_at, seen_by, weights_of
from adaspec_jax.training.objectives.labels import mean_over, rows_beside
from adaspec_jax.training.selection import Rule, by_refusal, top


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
    target is none that the head guesses among has no law to learn, as in 2503.01840; it counts in the mean, and no
    selection is made among such labels [ours].

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
    asks_agreement = by_refusal(rule)

    def objective(head: Head, frozen: Frozen, batch: Batch):
        kind, seen = head.config, seen_by(head, frozen, batch)
        made = guessed(head, frozen, batch, seen, chunking, micro_batches)
        shown = made
        if select is not None:
            shown = guessed(frozen.reference, frozen, batch, seen, chunking, micro_batches)
        loss, metrics = jnp.zeros((), jnp.float32), dict[str, Array]()
        for several in _alike(kind):
            at = labels_at(seen, batch, kind, several)
            says = bool({0, len(made) - 1} & set(several))  # in metrics
            made_BITD, shown_BITD = (jnp.stack([each[i] for i in several], axis=1) for each in (made, shown))
            kept_BIT, values = at.mask_BIT, None
            if select is not None:
                both = (divergence, several[0], head, frozen, made_BITD, shown_BITD, at, chunking)
                with jax.named_scope("select"):
                    values = _measured(*both, says=says or asks_agreement)
                    kept_BIT = jnp.stack([_chosen(select, values, at, n, frozen) for n in at.all], axis=1)
            count = partial(weights_of, kind, several, each_BIT=_each(head, frozen, made_BITD, at, chunking))
            weight_BIT = count(kept_BIT if normalize == "paper" else at.mask_BIT)
            given = (divergence, several[0], head, frozen, made_BITD, at, kept_BIT, weight_BIT, chunking)
            total, said = _law_total(*given, says=says and values is None)
            loss += kind.laws * total
            if kind.features:
                wide_BIT = kept_BIT if masks == "all" else at.mask_BIT
                weight_BIT = weight_BIT if masks == "all" else count(at.mask_BIT)
                loss += kind.features * _distance(made_BITD, at.hidden_BITD, wide_BIT, weight_BIT)
            if kind.alignment and 0 in several:
                of_first = tuple(x[:, 0] for x in (made_BITD, at.hidden_BITD, at.mask_BIT, kept_BIT))
                loss += kind.alignment * misalignment(head, frozen.target, *of_first, chunking, normalize=normalize)
            for n, i in enumerate(several):
                metrics |= _metrics(i, len(made), n, at, said if values is None else values, kept_BIT)
        return loss, metrics

    return objective


def _alike(kind: Kind) -> list[list[int]]:
    """The terms, those together whose laws are made by one output matrix: they are walked through at once."""
    everything = list(range(len(kind.terms)))
    return [everything] if kind.one_output else [[i] for i in everything]


def _each(head: Head, frozen: Frozen, made_BITD, at: Labels, chunking: Chunking) -> Array | None:
    """The weight of each label where the kind says so, without a gradient."""
    kind = head.config
    if not (kind.together and kind.by_own_laws):
        return kind.weights(at.mask_BIT, None) if kind.together else None
    head = jax.lax.stop_gradient(head)

    def values(operands):
        hidden_GCD, labels_GC = operands
        logits = head.logits(frozen.target, hidden_GCD)
        return {"given": jnp.exp(-_cross_entropy(head, logits, labels_GC))}

    operands = tuple(map(rows_beside, (made_BITD, at.tokens_BIT)))
    given = values_at(rows_beside(at.mask_BIT), values, operands, **_sizes(frozen, at, chunking))
    return jax.lax.stop_gradient(kind.weights(at.mask_BIT, _apart(given, at)["given"]))


def _chosen(select, values: Mapping[str, Array], at: Labels, n: int, frozen: Frozen) -> Array:
    """[B, T]: the labels that are kept of the n-th term: of those with a law the selected, and all others."""
    of_term, mask_BT = {name: value[:, n] for name, value in values.items()}, at.mask_BIT[:, n]
    inside_BT = of_term["inside"] > 0
    return select(of_term, mask_BT & inside_BT, frozen.now, at.segments_BT) | (mask_BT & ~inside_BT)


def _law_total(
    divergence,
    i: int,
    head: Head,
    frozen: Frozen,
    made_BITD,
    at: Labels,
    kept_BIT,
    weight_BIT,
    chunking,
    *,
    says: bool,
):
    """The weighted sum over the kept labels; and where it `says` that, what metrics tell of them, [B, I, T] each."""

    def per_token(params, hidden_GCD, operands, frozen):
        (taught_GCD, labels_GC, weight_GC), (tables, target) = operands, frozen
        part = replace(head, params=params, tables=tables)
        logits = part.logits(target, hidden_GCD, i)
        law = target.unembed(taught_GCD) if says or not part.config.hard else None
        said = _said(part, logits, law) if says else {}
        if part.config.hard:
            return weight_GC * _cross_entropy(part, logits, labels_GC), said
        lag_GC = divergence(logits, part.config.among(part, law))
        return jnp.where(_inside(part, law), weight_GC * lag_GC, 0.0), said

    operands = tuple(map(rows_beside, (at.hidden_BITD, at.tokens_BIT, weight_BIT)))
    reads, beside = head.config.outward(head.params, i), (head.tables, frozen.target)
    given = (rows_beside(kept_BIT), per_token, reads, rows_beside(made_BITD), operands, beside)
    total, said = total_at(*given, **_sizes(frozen, at, chunking))
    return total, _apart(said, at)


def _apart(values: Mapping[str, Array], at: Labels) -> dict[str, Array]:
    return {name: value.reshape(at.mask_BIT.shape) for name, value in values.items()}


def _measured(
    divergence, i: int, head: Head, frozen: Frozen, made_BITD, shown_BITD, at: Labels, chunking, *, says: bool
):
    """{"gap", "inside": whether there is a law} [B, I, T] at every label, without a gradient.

    Where it `says` more, "kl", "agreement" and "acceptance" too.
    """
    head = jax.lax.stop_gradient(head)

    def values(operands):
        hidden_GCD, shown_GCD, taught_GCD, labels_GC = operands
        logits = head.logits(frozen.target, hidden_GCD, i)
        reference = frozen.reference.logits(frozen.target, shown_GCD, i)
        law = frozen.target.unembed(taught_GCD) if says or not head.config.hard else None
        if head.config.hard:
            lag = _cross_entropy(head, logits, labels_GC) - _cross_entropy(head, reference, labels_GC)
            inside = jnp.ones_like(lag)
        else:
            lag = gap(divergence, logits, reference, head.config.among(head, law))
            inside = _inside(head, law)
        more = {}
        if says:
            more = {"kl": forward_kl(logits, head.config.among(head, law)), **_said(head, logits, law)}
        return {"gap": lag, "inside": inside, **more}

    operands = tuple(map(rows_beside, (made_BITD, shown_BITD, at.hidden_BITD, at.tokens_BIT)))
    return _apart(values_at(rows_beside(at.mask_BIT), values, operands, **_sizes(frozen, at, chunking)), at)


def _sizes(frozen: Frozen, at: Labels, chunking: Chunking) -> dict[str, Any]:
    vocab_size = jax.eval_shape(lambda: frozen.target.unembed(at.hidden_BITD[:, 0])).shape[-1]
    return {"vocab_size": vocab_size, "chunking": chunking}


def _inside(head: Head, law: Array) -> Array:
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


def _distance(made_BITD: Array, taught_BITD: Array, mask_BIT: Array, weight_BIT: Array) -> Array:
    """The weighted sum over labels of the smooth L1 distance, averaged over features."""
    each_BITD = optax.losses.huber_loss(made_BITD.astype(jnp.float32), taught_BITD.astype(jnp.float32))
    return jnp.sum(jnp.where(mask_BIT, weight_BIT * jnp.mean(each_BITD, axis=-1), 0.0))


def _metrics(i: int, count: int, n: int, at: Labels, values, kept_BIT) -> dict[str, Array]:
    """Of term i, which is the n-th here."""
    if i not in (0, count - 1):
        return {}
    selected = "gap" in values
    mask_BT, kept_BT, values = at.mask_BIT[:, n], kept_BIT[:, n], {name: x[:, n] for name, x in values.items()}
    found, where_BT = {}, mask_BT if selected else kept_BT
    if i == 0:
        found = {"tokens": jnp.sum(mask_BT)}
        found |= {name: mean_over(values[name], where_BT) for name in ("agreement", "acceptance")}
    if i == 0 and selected:
        inside_BT = mask_BT & (values["inside"] > 0)
        found |= {
            "share_kept": mean_over(kept_BT, inside_BT),
            "kl_kept": mean_over(values["kl"], kept_BT & inside_BT),
            "kl_dropped": mean_over(values["kl"], inside_BT & ~kept_BT),
            "gap": mean_over(values["gap"], inside_BT),
        }
    if i == count - 1:
        found["agreement_last"] = mean_over(values["agreement"], where_BT)
    return found
