"""The acceptance rule by itself: greedy's short walk is the general one under one-hot laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Lenient, Proposal, Sampling, rejection_sample
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


def acceptance_of(rule, p, q, *, rows=40_000):
    """The measured share of first guesses from q that stay under the law p, and the mean of min(1, f(p) / q)."""
    tokens = jax.random.categorical(jax.random.key(1), jnp.log(q), shape=(rows, 1))
    proposal = Proposal(tokens, probs_BNV=jnp.broadcast_to(q[None, None], (rows, 1, len(q))))
    logits = jnp.broadcast_to(jnp.log(p)[None, None], (rows, 2, len(p)))
    return float(rule(jax.random.key(2), proposal, logits, Sampling(1.0)).accepted_BN.mean())


@pytest.mark.parametrize(
    ("rule", "raised"),
    [
        (rejection_sample, lambda p: p),
        (Lenient(1.0), lambda p: p),
        (Lenient(0.5), lambda p: p / 0.5),
        (Lenient(0.5, "square"), lambda p: p / 0.25),
        (Lenient(0.5, "exponential"), lambda p: p**0.5),
    ],
    ids=["strict", "1", "1/2", "square", "exponential"],
)
def test_lenience_accepts_as_often_as_its_formula_says(rule, raised):
    p, q = jnp.asarray([0.1, 0.2, 0.3, 0.4]), jnp.asarray([0.7, 0.1, 0.1, 0.1])
    expected = float(jnp.sum(q * jnp.minimum(1, raised(p) / q)))
    assert abs(acceptance_of(rule, p, q) - expected) < 4 * (0.25 / 40_000) ** 0.5


def test_lenience_leaves_greedy_decoding_as_it_is_and_refuses_what_is_none():
    proposal, logits_BMV = random_round(3)
    ours, strict = (rule(jax.random.key(0), proposal, logits_BMV, GREEDY) for rule in (Lenient(0.1), rejection_sample))
    jax.tree.map(np.testing.assert_array_equal, ours, strict)
    for wrong in ({"epsilon": 0.0}, {"epsilon": 1.5}, {"epsilon": 0.5, "form": "cubic"}):
        with pytest.raises(ValueError, match="lenience needs"):
            Lenient(**wrong)
