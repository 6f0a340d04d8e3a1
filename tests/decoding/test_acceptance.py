"""The acceptance rule by itself: greedy's short walk is the general one under one-hot laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Proposal, Sampling, rejection_sample
from adaspec_jax.decoding.sampling import GREEDY, most_likely

COLD = Sampling(temperature=1e-6)  # the same laws, through the general rule


def random_round(seed, *, batch=64, nodes=7, vocab=4):
    rng = np.random.default_rng(seed)
    parents_BN = np.stack([rng.integers(-1, n, batch) if n else np.full(batch, -1) for n in range(nodes)], axis=1)
    proposal = Proposal(
        jnp.asarray(rng.integers(0, vocab, (batch, nodes)), jnp.int32),
        parents_BN=jnp.asarray(parents_BN, jnp.int32) if seed % 2 else None,
        valid_BN=jnp.asarray(rng.random((batch, nodes)) < 0.8) if seed % 3 else None,
    )
    return proposal, jnp.asarray(rng.normal(size=(batch, nodes + 1, vocab)), jnp.float32)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_the_general_rule_under_one_hot_laws(seed):
    proposal, logits_BMV = random_round(seed)
    greedy = rejection_sample(jax.random.key(seed), proposal, logits_BMV, GREEDY)
    general = rejection_sample(jax.random.key(seed), proposal, logits_BMV, COLD)
    jax.tree.map(np.testing.assert_array_equal, greedy, general)
    assert greedy.accepted_BN.sum() > 5 and greedy.judged_BN.sum() > greedy.accepted_BN.sum()


def test_the_most_likely_token_is_argmax_and_the_first_of_equals():
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=(5, 3, 1000)), rng.integers(0, 3, (50, 9)), np.full((2, 4), -np.inf)):
        np.testing.assert_array_equal(most_likely(jnp.asarray(scores, jnp.float32)), np.argmax(scores, axis=-1))
    assert 0 <= most_likely(jnp.full((6,), jnp.nan)) < 6


def test_a_pick_comes_with_its_law():
    logits_BV = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)), jnp.float32)
    token_B, law = GREEDY.pick(jax.random.key(0), logits_BV)
    assert law is None
    np.testing.assert_array_equal(token_B, jnp.argmax(logits_BV, axis=-1))
    sampling = Sampling(temperature=0.5, top_k=2)
    token_B, law_BV = sampling.pick(jax.random.key(0), logits_BV)
    np.testing.assert_array_equal(law_BV, sampling.probs(logits_BV))
    assert (jnp.take_along_axis(law_BV, token_B[:, None], axis=1) > 0).all()
