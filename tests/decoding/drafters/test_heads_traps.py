"""Slips that leave the text as it is and cost acceptance: each is seen, on heads trained for a moment."""

import jax
import jax.numpy as jnp
import pytest

from adaspec_jax.decoding import Sampling, generate
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter
from adaspec_jax.models.heads.parts.recurrent import OnTarget
from tests.decoding.drafters.heads import VOCAB, on, target, trained
from tests.decoding.test_engine import ragged_prompt


class BeforeTheNorm(OnTarget):
    """Reads the last layer's output before the final norm."""

    layers = property(lambda self: (target().config.num_layers - 1,))


class OneBehind(OnTarget):
    """Reads at every position the hidden state before it."""

    def read(self, hidden_BTD, tokens_BT, cache, **where):
        if hidden_BTD.shape[1] > 1:
            hidden_BTD = jnp.roll(hidden_BTD, 1, axis=1)
        return super().read(hidden_BTD, tokens_BT, cache, **where)


class OwnToken(OnTarget):
    """Reads with a hidden state the token that it is of, in place of the next one."""

    def read(self, hidden_BTD, tokens_BT, cache, **where):
        return super().read(hidden_BTD, jnp.roll(tokens_BT, 1, axis=1), cache, **where)


class Forgetting(OnTarget):
    """Attends to nothing that it read before."""

    def read(self, hidden_BTD, tokens_BT, cache, *, positions_BT=None, mask_BTS=None):
        slot_BT = cache.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
        own_BTS = jnp.arange(cache.slots)[None, None] == slot_BT[:, :, None]
        return super().read(hidden_BTD, tokens_BT, cache, positions_BT=positions_BT, mask_BTS=own_BTS)


TRAPS = (BeforeTheNorm, OneBehind, OwnToken, Forgetting)
for trap in TRAPS:
    jax.tree_util.register_dataclass(trap, data_fields=["head", "target"], meta_fields=[])


@pytest.fixture(scope="module")
def kept():
    """name -> (guesses accepted a round) of a head and of the same with a slip, greedily."""
    prompt = ragged_prompt(16, vocab=VOCAB)

    def rate(made):
        how = {"max_new_tokens": 24, "sampling": Sampling(0.0), "eos_id": -1}
        found = jax.device_get(generate(target(), FeatureDrafter(made, 2), prompt, jax.random.key(0), **how))
        return found.accepted_BN.sum() / found.rounds_B.sum()

    right = on(trained("eagle"))
    return rate(right), {trap: rate(trap(right.head, right.target)) for trap in TRAPS}


def test_a_head_as_it_was_trained_is_often_right(kept):
    assert kept[0] > 0.3


@pytest.mark.parametrize("trap", TRAPS)
def test_a_slip_costs_acceptance(kept, trap):
    assert kept[1][trap] < 0.8 * kept[0]
