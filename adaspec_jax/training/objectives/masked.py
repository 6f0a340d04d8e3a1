"""What a draft model minimises that guesses several tokens in one pass, at mask tokens after the text: PARD, SpecDec.

A chain begins at a token of the text: the token itself guesses the next one (depth 0), and the mask that stands in the
place of that one guesses the one after it (depth 1), and so on. A row of a batch holds its own tokens and, behind them,
the masks of as many chains as are kept at each depth, `Slots`; who attends to whom is said in a mask of such a row's
length, and positions are those of the text. So a step computes what decoding meets: masks see the text up to where
their chain begins, and the masks of their own chain before them, or all of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from adaspec_jax.models.attention import positions_within
from adaspec_jax.training.divergences import Divergence, forward_kl
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Sizes, Values, total_at, values_at
from adaspec_jax.training.lessons import lesson_of
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.distill import Select, selecting
from adaspec_jax.training.objectives.labels import (
    features_in_parts,
    in_parts,
    labels_of,
    mean_over,
    taught_of,
    vocab_size_of,
)
from adaspec_jax.training.objectives.mask_slots import Masks, Slots, seen_by, slots_of
from adaspec_jax.training.objectives.revealing import glanced
from adaspec_jax.training.selection import Rule, top


def distill_masked(
    divergence: Divergence = forward_kl,
    *,
    masks: Masks,
    steps: int = 1,
    fraction: float | Callable[[Array], Array] | None = None,
    normalize: Literal["paper", "official"] = "paper",
    scope: Literal["global", "shard", "sequence"] = "global",
    shards: int = 1,
    rule: Rule = top,
    chunking: Chunking = DEFAULT,
    micro_batches: int = 1,
) -> Objective:
    """The weighted mean over slots that guess labels, of all depths together; those selected, with a `fraction`.

    With one guess, `tokens` 0 and `laws` 1 it is `distill`, and `selective_distill`. The model's config names its mask
    token. Selection is AdaSPEC's: by the gap of draft and reference at every slot, both in the same pass, with the same
    tokens revealed. `steps`: batches, over which glancing goes from `reveal` to `reveal_last`. Other arguments and
    metrics as in `selective_distill`; agreement_last is that at the last depth.
    """
    if normalize not in ("paper", "official"):
        raise ValueError(f'normalize must be "paper" or "official", not {normalize!r}')
    select = None if fraction is None else selecting(rule, fraction, scope, shards)
    features, how = features_in_parts(micro_batches, chunking), (chunking, micro_batches)

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        key = jax.random.key(0) if frozen.now is None else jax.random.fold_in(frozen.now.key, 1)
        slots = slots_of(batch, masks, model.config.mask_token, key)
        if masks.reveal or masks.reveal_last:
            with jax.named_scope("glance"):
                slots = _glanced(jax.lax.stop_gradient(model), frozen, batch, slots, masks, steps, how)
        hidden_BXD = _hidden(model, batch, slots, masks, *how)
        sizes: Sizes = {"vocab_size": vocab_size_of(model, hidden_BXD), "chunking": chunking}
        taught_BTD = taught_of(frozen.target, batch, features)
        weight_BX = _weights(frozen.target, batch, taught_BTD, slots, masks, sizes)
        taught_BXD, tokens_BX = slots.take(taught_BTD), slots.take(labels_of(batch)[0])
        kept_BX, values = slots.label_BX, None
        if select is not None:
            with jax.named_scope("select"):
                shown_BXD = _hidden(frozen.reference, batch, slots, masks, *how)
                operands = (hidden_BXD, taught_BXD, shown_BXD, tokens_BX)
                measured = _measured(divergence, masks, jax.lax.stop_gradient(model.unembedding()), frozen)
                values = values_at(slots.label_BX, measured, operands, **sizes)
                kept_BX = _chosen(select, values, slots, frozen, batch)
        weighed = (taught_BXD, tokens_BX, weight_BX)
        given = (kept_BX, _per_token(divergence, masks), model.unembedding(), hidden_BXD, weighed, frozen.target)
        total, said = total_at(*given, **sizes)
        counted_BX = kept_BX if normalize == "paper" else slots.label_BX
        weights = jnp.sum(jnp.where(counted_BX, weight_BX, 0.0))
        loss = total / jnp.where(weights > 0, weights, 1)
        return loss, _metrics(slots, kept_BX, said if values is None else values)

    return objective


def _chosen(select: Select, values: Values, slots: Slots, frozen: Frozen, batch: Batch) -> Array:
    segments_BX = None if batch.segments_BT is None else slots.take(batch.segments_BT)
    return select(values, slots.label_BX, frozen.now, segments_BX)


def _glanced(model: Any, frozen: Frozen, batch: Batch, slots: Slots, masks: Masks, steps: int, how: Any) -> Slots:
    """The slots, with as many of the text's own tokens revealed as the model's guesses without any call for."""

    def guessed(operands: Any) -> Values:
        hidden_GCD, tokens_GC = operands
        return {"right": jnp.argmax(model.unembed(hidden_GCD), axis=-1) == tokens_GC}

    hidden_BXD = _hidden(model, batch, slots, masks, *how)
    operands = (hidden_BXD, slots.take(labels_of(batch)[0]))
    sizes: Sizes = {"vocab_size": vocab_size_of(model, hidden_BXD), "chunking": how[0]}
    right_BX = values_at(slots.label_BX, guessed, operands, **sizes)["right"] > 0
    share: Any = masks.reveal
    if frozen.now is not None:
        share = optax.linear_schedule(masks.reveal, masks.reveal_last, max(steps - 1, 1))(frozen.now.step)
    key = jax.random.key(1) if frozen.now is None else jax.random.fold_in(frozen.now.key, 2)
    return glanced(slots, jnp.asarray(batch.tokens_BT), right_BX, share, key)


def _hidden(model: Any, batch: Batch, slots: Slots, masks: Masks, chunking: Chunking, parts: int) -> Array:
    """The model's final hidden states at every slot."""
    if masks.guesses == 1:
        return features_in_parts(parts, chunking)(model, batch)
    length = batch.tokens_BT.shape[1]

    def features(model: Any, inputs: Any) -> Array:
        tokens_BX, begins_BX, places_BX, segments_BT = inputs
        if segments_BT is not None:
            within_BT = positions_within(segments_BT)
            places_BX += jnp.take_along_axis(within_BT, begins_BX, axis=1) - begins_BX
        mask_BXX = seen_by(slots, begins_BX, segments_BT, length, whole=masks.whole)
        return model.features(tokens_BX, positions_BT=places_BX, mask_BTS=mask_BXX)[0]

    inputs = (slots.tokens_BX, slots.begins_BX, slots.places_BX, batch.segments_BT)
    return in_parts(features, model, inputs, micro_batches=parts, chunking=chunking)


def _weights(target: Any, batch: Batch, taught_BTD: Array, slots: Slots, masks: Masks, sizes: Sizes) -> Array:
    """[B, X]: what the target gives the text's own tokens between where a chain begins and what the slot guesses."""
    labels_BT, mask_BT = labels_of(batch)
    if not masks.confident or masks.guesses == 1:
        return jnp.ones(slots.label_BX.shape, jnp.float32)

    def given(operands: Any) -> Values:
        taught_GCD, labels_GC = operands
        logits_GCV = target.unembed(taught_GCD)
        lag_GC = optax.losses.softmax_cross_entropy_with_integer_labels(logits_GCV, labels_GC)
        return {"probability": jnp.exp(-lag_GC)}

    probability_BT = values_at(mask_BT, given, (taught_BTD, labels_BT), **sizes)["probability"]
    weights, weight_BT = [], jnp.ones_like(probability_BT)
    for d in range(masks.guesses):
        begins_BC = slots.begins_BX[:, slots.depth_X == d]
        weights.append(jnp.take_along_axis(weight_BT, begins_BC, axis=1))
        weight_BT = weight_BT * jnp.roll(probability_BT, -d, axis=1)
    return jnp.concatenate(weights, axis=1)


def _per_token(divergence: Divergence, masks: Masks) -> Any:
    def per_token(model: Any, hidden_GCD: Array, operands: Any, target: Any) -> tuple[Array, Values]:
        taught_GCD, tokens_GC, weight_GC = operands
        logits_GCV, lesson = model.unembed(hidden_GCD), lesson_of(target, taught_GCD)
        loss_GC = jnp.zeros((), jnp.float32)
        if masks.laws:
            loss_GC += masks.laws * lesson.divergence(divergence, logits_GCV)
        if masks.tokens:
            loss_GC += masks.tokens * _cross_entropy(logits_GCV, tokens_GC)
        return weight_GC * loss_GC, {"agreement": lesson.agrees(logits_GCV)}

    return per_token


def _measured(divergence: Divergence, masks: Masks, model: Any, frozen: Frozen) -> Callable[[Any], Values]:
    """`(hidden, taught, shown, tokens) -> {"gap", "kl", "agreement"}` of a chunk of slots."""

    def values(operands: Any) -> Values:
        hidden_GCD, taught_GCD, shown_GCD, tokens_GC = operands
        logits_GCV, lesson = model.unembed(hidden_GCD), lesson_of(frozen.target, taught_GCD)
        reference_GCV, gap_GC = frozen.reference.unembed(shown_GCD), jnp.zeros((), jnp.float32)
        if masks.laws:
            gap_GC += masks.laws * lesson.gap(divergence, logits_GCV, reference_GCV)
        if masks.tokens:
            own = _cross_entropy(logits_GCV, tokens_GC) - _cross_entropy(reference_GCV, tokens_GC)
            gap_GC += masks.tokens * own
        kl_GC, agreement_GC = lesson.divergence(forward_kl, logits_GCV), lesson.agrees(logits_GCV)
        return {"gap": gap_GC, "kl": kl_GC, "agreement": agreement_GC}

    return values


_cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


def _metrics(slots: Slots, kept_BX: Array, values: Values) -> Metrics:
    label_BX, last_1X = slots.label_BX, jnp.asarray(slots.depth_X == slots.depth_X.max())[None]
    seen_BX = label_BX if "gap" in values else kept_BX
    found = {
        "tokens": jnp.sum(label_BX),
        "agreement": mean_over(values["agreement"], seen_BX & jnp.asarray(slots.depth_X == 0)[None]),
        "agreement_last": mean_over(values["agreement"], seen_BX & last_1X),
    }
    if "gap" in values:
        found |= {
            "share_kept": mean_over(kept_BX, label_BX),
            "kl_kept": mean_over(values["kl"], kept_BX),
            "kl_dropped": mean_over(values["kl"], label_BX & ~kept_BX),
            "gap": mean_over(values["gap"], label_BX),
        }
    return found
