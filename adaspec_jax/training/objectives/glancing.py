"""Heads that are shown some of what they would guess wrong: coupled sequential glancing distillation (Falcon).

Gao et al. 2024 (arXiv 2412.12639), as the released code has it. A first pass, without a gradient, counts in every row
the labels that the head guesses wrong. Then, at the first entries of blocks chosen at random among every k-th label,
as many as a share of that count, what an entry reads gives way to what it is to guess: the hidden state and the token k
further on. The second pass has the loss; so the guesses of a block learn from each other, less and less as the share
falls with the steps.

An entry that was shown its guess may be the first of a block, and no other's: places whose block would see it from
before are left out, so that nothing is shown of what comes after a block [ours: there, as blocks have fixed places].
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models.heads import Head, features_of, following
from adaspec_jax.models.heads.falcon import Falcon
from adaspec_jax.models.heads.parts.coupled import Coupled
from adaspec_jax.training.divergences import Divergence, forward_kl
from adaspec_jax.training.label_chunks import DEFAULT, Chunking, values_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.heads import distill_head
from adaspec_jax.training.objectives.labels import guessing_labels, in_parts, rows_beside, vocab_size_of


def distill_glancing(
    divergence: Divergence = forward_kl,
    *,
    steps: int = 1,
    chunking: Chunking = DEFAULT,
    micro_batches: int = 1,
    **how: Any,
) -> Objective:
    """`distill_head`, with the same arguments, after some of what the head would guess wrong was shown to it.

    `steps`: of the stage, over which the share falls from `glance` to `glance_end`, both the kind's.
    """
    sizes: dict[str, Any] = {"chunking": chunking, "micro_batches": micro_batches}
    distilled = distill_head(divergence, **sizes, **how)

    def objective(head: Head, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        kind, now = cast(Falcon, head.config), frozen.now
        if batch.target_features_BTF is None:
            features_BTF = features_of(frozen.target, batch.tokens_BT, kind.taught_layers, batch.segments_BT)
            batch = replace(batch, target_features_BTF=features_BTF)
        if not (kind.glance or kind.glance_end):
            return distilled(head, frozen, batch)
        wrong_B = _wrong(jax.lax.stop_gradient(head), frozen, batch, **sizes)
        done = 0.0 if now is None else jnp.clip(now.step / max(steps - 1, 1), 0, 1)
        share = kind.glance + (kind.glance_end - kind.glance) * done
        key = jax.random.key(0) if now is None else jax.random.fold_in(now.key, 2)
        return distilled(head, frozen, glanced(kind, batch, wrong_B * share, key))

    return objective


def _wrong(head: Head, frozen: Frozen, batch: Batch, *, chunking: Chunking, micro_batches: int) -> Array:
    """[B]: the labels of each row whose likeliest token the head does not guess, on the mean over the guesses of them.

    It reads hidden states as they are, without noise [ours].
    """
    kind, target = head.config, frozen.target

    def guessed(head: Head, given: Any) -> Any:
        return head.guessed(target, *given)

    def differs(operands: Any) -> dict[str, Array]:
        logits, law = (target.unembed(x) for x in operands)
        return {"wrong": jnp.argmax(logits, axis=-1) != jnp.argmax(law, axis=-1)}

    given = (batch.tokens_BT, batch.target_features_BTF, batch.segments_BT)
    made_BITD = jnp.stack(in_parts(guessed, head, given, micro_batches=micro_batches, chunking=chunking), axis=1)
    last_BTD = _last(batch)
    shifts = [term.shift for term in kind.terms]
    mask_BIT = jnp.stack([guessing_labels(batch, shift) for shift in shifts], axis=1)
    taught_BITD = jnp.stack([following(last_BTD, shift) for shift in shifts], axis=1)
    operands = tuple(map(rows_beside, (made_BITD, taught_BITD)))
    how: dict[str, Any] = {"vocab_size": vocab_size_of(target, last_BTD), "chunking": chunking}
    wrong = values_at(rows_beside(mask_BIT), differs, operands, **how)["wrong"]
    return jnp.sum(wrong.reshape(mask_BIT.shape), axis=(1, 2), dtype=jnp.float32) / len(shifts)


def _last(batch: Batch) -> Array:
    """The target's hidden states after its final norm."""
    last_BTD = batch.target_features_BTF if batch.target_hidden_BTD is None else batch.target_hidden_BTD
    assert last_BTD is not None, "the objective brings them where the batch does not"
    return last_BTD


def glanced(kind: Coupled, batch: Batch, shown_B: Array, key: Array) -> Batch:
    """The batch in which `shown_B` entries of each row read what they are to guess, or as many as there are."""
    block, tokens_BT = kind.block, jnp.asarray(batch.tokens_BT)
    shown_BT = _shown(guessing_labels(batch, block), block, shown_B, key)
    # Entry t reads the token at t + 1.
    read_BT = jnp.where(jnp.roll(shown_BT, 1, axis=1), following(tokens_BT, block), tokens_BT)
    hidden_BTF = _last(batch)
    read_BTF = hidden_BTF if batch.target_features_BTF is None else batch.target_features_BTF
    return replace(
        batch,
        read_tokens_BT=read_BT,
        target_features_BTF=jnp.where(shown_BT[..., None], following(hidden_BTF, block), read_BTF),
        target_hidden_BTD=hidden_BTF,
        places_BT=_places(shown_BT, block, kind.steps),
    )


def _shown(mask_BT: Array, block: int, shown_B: Array, key: Array) -> Array:
    """Of every `block`-th place of the mask so many, and of longer blocks some of the places after them."""
    keys = jax.random.split(key, 2)
    may_BT = mask_BT & ((jnp.cumsum(mask_BT, axis=1) - 1) % block == 0)
    draw_BT = jnp.where(may_BT, jax.random.uniform(keys[0], mask_BT.shape), 2.0)
    number_B = jnp.floor(shown_B).astype(jnp.int32)
    number_B = number_B if block == 2 else number_B // block
    rank_BT = jnp.argsort(jnp.argsort(draw_BT, axis=1), axis=1)
    begins_BT = may_BT & (rank_BT < number_B[:, None])
    more_BT = jax.random.randint(keys[1], mask_BT.shape, 0, max(block - 1, 1))
    shown_BT = begins_BT
    for j in range(1, block - 1):
        after_BT = jnp.roll(begins_BT & (more_BT >= j), j, axis=1)
        shown_BT |= after_BT.at[:, :j].set(False) & mask_BT
    return shown_BT


def _places(shown_BT: Array, block: int, steps: int) -> Array:
    """The places whose blocks see nothing from after them: those shown in a block are its first entries."""
    places_BT, back_BT = jnp.ones_like(shown_BT), shown_BT
    for _ in range(block - 1):  # is an entry shown whose neighbour before, in the same block, is not?
        before_BT = jnp.roll(back_BT, 1, axis=1).at[:, 0].set(False)
        places_BT &= ~(back_BT & ~before_BT)
        back_BT = before_BT
    for after in range(1, block * (steps - 1) + 1):  # tokens that later blocks read
        places_BT &= ~jnp.roll(shown_BT, -after, axis=1)
    return places_BT
