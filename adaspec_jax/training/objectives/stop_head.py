"""What a stop head on a draft model minimises: whether the target keeps what the draft guesses (SpecDec++)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.training.label_chunks import DEFAULT, Chunking, Sizes, Values, values_at
from adaspec_jax.training.objectives.batch import Batch, Frozen, Metrics, Objective
from adaspec_jax.training.objectives.labels import features_in_parts, labels_of, mean_over, taught_of, vocab_size_of


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """SpecDec++'s numbers, as in its code: the share of tokens that stay the text's, and the weight of a refusal.

    Raises:
      ValueError: values that cannot be.
    """

    depth: int = 3  # blocks of the head
    kept: float = 0.15
    weight: float = 6.0
    epochs: float = 3.0
    lr: float = 5e-5  # the trainer's default there, recalled, not looked up again

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= 64:
            raise ValueError(f"depth is {self.depth}; it must be from 0 to 64")
        if not 0 <= self.kept < 1:
            raise ValueError(f"kept is {self.kept}; it must be at least 0 and below 1")
        for name in ("weight", "epochs", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


def stop_labels(draft: Any, target: Any, batch: Batch, key: Array, kept: float, *, sizes: Sizes, features: Any) -> Any:
    """(tokens_BT in which the draft's samples stand for labels, stays_BT: min(1, p / q) of each, told_BT: where).

    At every label of the text the draft draws a token from its law q along the text as it is, and the target's law p
    there says how likely it stays. A random share `kept` of labels stay the text's own tokens, and tell nothing.
    """
    tokens_BT, (_, mask_BT) = jnp.asarray(batch.tokens_BT), labels_of(batch)
    draw, keep = jax.random.split(key)
    noise_BT = jax.random.uniform(draw, tokens_BT.shape)
    hidden_BTD = jax.lax.stop_gradient(features(draft, batch))

    def drawn(operands: Any) -> Values:
        hidden_GCD, taught_GCD, noise_GC = operands
        q_GCV = jax.nn.softmax(draft.unembed(hidden_GCD))
        below_GCV = jnp.cumsum(q_GCV, axis=-1) <= (noise_GC * jnp.sum(q_GCV, axis=-1))[..., None]
        # A rounded sum may reach the noise where the law is zero: the last token of the law is as far as it goes.
        last_GC = q_GCV.shape[-1] - 1 - jnp.argmax((q_GCV > 0)[..., ::-1], axis=-1)
        token_GC = jnp.minimum(jnp.sum(below_GCV, axis=-1), last_GC)
        p_GCV = jax.nn.softmax(target.unembed(taught_GCD))
        p_GC, q_GC = (jnp.take_along_axis(x, token_GC[..., None], axis=-1)[..., 0] for x in (p_GCV, q_GCV))
        return {"token": token_GC.astype(jnp.int32), "stays": jnp.minimum(1.0, p_GC / jnp.maximum(q_GC, 1e-30))}

    taught_BTD = taught_of(target, batch, features)
    values = values_at(mask_BT, drawn, (hidden_BTD, taught_BTD, noise_BT), **sizes)
    # What is said at the position that predicts a label is moved to the label's own.
    moved = {name: jnp.roll(value, 1, axis=1) for name, value in values.items()}
    label_BT = jnp.roll(mask_BT, 1, axis=1)
    told_BT = label_BT & (jax.random.uniform(keep, tokens_BT.shape) >= kept)
    return jnp.where(told_BT, moved["token"], tokens_BT), moved["stays"], told_BT


def fit_stop_head(*, stopping: Stopping, chunking: Chunking = DEFAULT, micro_batches: int = 1) -> Objective:
    """Binary cross entropy of soft labels min(1, p / q), refusals `weight` times, over the sum of those weights.

    SpecDec++ (arXiv 2405.19715). The model is the stop head, `frozen.reference` the draft model that it is for: of that
    nothing changes. Metrics: tokens, stays (mean label), said (mean estimate).
    """
    features = features_in_parts(micro_batches, chunking)

    def objective(model: Any, frozen: Frozen, batch: Batch) -> tuple[Array, Metrics]:
        key = jax.random.key(0) if frozen.now is None else jax.random.fold_in(frozen.now.key, 2)
        draft = jax.lax.stop_gradient(frozen.reference)
        hidden_BTD = jax.eval_shape(features, draft, batch)
        sizes: Sizes = {"vocab_size": vocab_size_of(draft, hidden_BTD), "chunking": chunking}
        given = (draft, frozen.target, batch, key, stopping.kept)
        tokens_BT, stays_BT, told_BT = stop_labels(*given, sizes=sizes, features=features)
        read_BTD = jax.lax.stop_gradient(features(draft, replace(batch, tokens_BT=tokens_BT)))
        said_BT2 = jax.nn.log_softmax(model.logits(read_BTD))
        goes_BT = stopping.weight * (1 - stays_BT)
        lag_BT = -(goes_BT * said_BT2[..., 0] + stays_BT * said_BT2[..., 1])
        total, weights = (jnp.sum(jnp.where(told_BT, x, 0.0)) for x in (lag_BT, goes_BT + stays_BT))
        return total / jnp.where(weights > 0, weights, 1), {
            "tokens": jnp.sum(told_BT),
            "stays": mean_over(stays_BT, told_BT),
            "said": mean_over(jnp.exp(said_BT2[..., 1]), told_BT),
        }

    return objective
