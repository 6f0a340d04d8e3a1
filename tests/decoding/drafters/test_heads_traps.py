"""Slips that leave the text as it is and cost acceptance, on heads trained for a moment; positions: `test_heads.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import NoDraft, Sampling, generate, pytree
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter
from adaspec_jax.models.heads.parts.recurrent import OnTarget
from adaspec_jax.training import Batch
from tests.decoding.drafters.heads import VOCAB, on, target, trained_on
from tests.decoding.test_engine import ragged_prompt


class BeforeTheNorm(OnTarget):
    """Reads the last layer's output before the final norm."""

    layers = property(lambda self: (target().config.num_layers - 1,))


class Forgetting(OnTarget):
    """Attends to nothing that it read before."""

    def read(self, hidden_BTD, tokens_BT, cache, *, positions_BT=None, mask_BTS=None):
        slot_BT = cache.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        own_BTS = jnp.arange(cache.slots)[None, None] == slot_BT[:, :, None]
        return super().read(hidden_BTD, tokens_BT, cache, positions_BT=positions_BT, mask_BTS=own_BTS)


@pytree("length")
class OffByOne(FeatureDrafter):
    """Reads with a hidden state the token that it is of, in place of the next one."""

    def _standing(self, cache, context):
        return super()._standing(cache, dataclasses.replace(context, tokens_BS=jnp.roll(context.tokens_BS, 1, axis=1)))


TRAPS = {
    "features before the norm": lambda right: FeatureDrafter(BeforeTheNorm(right.head, right.target), 2),
    "tokens off by one": lambda right: OffByOne(right, 2),
    "no cache": lambda right: FeatureDrafter(Forgetting(right.head, right.target), 2),
}


@pytest.fixture(scope="module")
def kept():
    """(guesses accepted a round by a head trained on the very texts, by the same with each slip), greedily."""
    prompt, how = ragged_prompt(16, vocab=VOCAB), {"max_new_tokens": 24, "sampling": Sampling(0.0), "eos_id": -1}
    made = jax.device_get(generate(target(), NoDraft(), prompt, jax.random.key(0), **how))
    written_BS = np.arange(made.tokens_BS.shape[1])[None] < made.lengths_B[:, None]
    right = on(trained_on("eagle", Batch(jnp.asarray(made.tokens_BS), jnp.asarray(written_BS)), 300))

    def rate(drafter):
        found = jax.device_get(generate(target(), drafter, prompt, jax.random.key(0), **how))
        return found.accepted_BN.sum() / found.rounds_B.sum()

    return rate(FeatureDrafter(right, 2)), {trap: rate(made(right)) for trap, made in TRAPS.items()}


def test_a_head_as_it_was_trained_is_often_right(kept):
    assert kept[0] > 1


@pytest.mark.parametrize("trap", TRAPS)
def test_a_slip_costs_acceptance(kept, trap):
    assert kept[1][trap] < 0.6 * kept[0]
