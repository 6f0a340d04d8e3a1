"""AdamW with the settings of the paper's recipe, from optax parts."""

from __future__ import annotations

from typing import Literal

import jax
import optax

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(peak: float, *, steps: int, schedule: Schedule = "constant", warmup_steps: int = 0) -> optax.Schedule:
    """Linear warm-up from 0 to `peak`, then constant, or down to 0 at `steps` along a line or a cosine."""
    after = max(steps - warmup_steps, 1)
    tails = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, after),
        "cosine": lambda: optax.cosine_decay_schedule(peak, after),
    }
    if schedule not in tails:
        raise ValueError(f'schedule must be one of {", ".join(tails)}, not "{schedule}"')
    tail = tails[schedule]()
    if not warmup_steps:
        return tail
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), tail], [warmup_steps])


def adamw(
    rate: optax.Schedule | float,
    *,
    weight_decay: float = 0.1,
    clip_norm: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    accumulate: int = 1,
) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW; biases and norm scales (1-D) do not decay, as in the PyTorch recipe.

    With `accumulate` > 1 the mean gradient of that many batches makes one update; each batch selects its own tokens.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []
    parts.append(optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays))
    chain = optax.chain(*parts)
    return optax.MultiSteps(chain, accumulate).gradient_transformation() if accumulate > 1 else chain


def decays(params):
    """True for matrices and embeddings."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
