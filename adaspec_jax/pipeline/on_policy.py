"""On-policy distillation: the model is taught on what it writes itself (DistillSpec, arXiv 2310.08461, and GKD)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.training import Batch


def on_policy(*, max_new_tokens: int, temperature: float, eos_id: int | Sequence[int], share: float = 1.0):
    """`(model, batch, key) -> Batch`: answers sampled from the model itself after the batch's prompts.

    In a `share` of the calls; else the batch stays as it is. An answer ends with `eos_id`, after `max_new_tokens`, or
    where the batch's rows end. To be called in a jitted step: no gradient reaches the sampling.
    """

    def rewrite(model, batch: Batch, key: jax.Array) -> Batch:
        tokens_BT, mask_BT = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.loss_mask_BT, bool)
        length = tokens_BT.shape[1]
        prompts_B = jnp.argmax(mask_BT, axis=1)
        chance_key, sample_key = jax.random.split(key)

        def sampled():
            generation = generate(
                model.with_rematerialisation(False).unstacked(),
                NoDraft(),
                Context(tokens_BT, prompts_B),
                sample_key,
                max_new_tokens=min(max_new_tokens, length - 1),
                sampling=Sampling(temperature),
                eos_id=eos_id,
            )
            place_1T = jnp.arange(length)[None]
            answer_BT = (place_1T >= prompts_B[:, None]) & (place_1T < generation.lengths_B[:, None])
            return generation.tokens_BS[:, :length].astype(tokens_BT.dtype), answer_BT

        if share >= 1:
            return Batch(*sampled())
        chosen = jax.random.uniform(chance_key) < share
        return Batch(*jax.lax.cond(chosen, sampled, lambda: (tokens_BT, mask_BT)))

    return rewrite
