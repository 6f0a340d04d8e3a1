"""Tokens are drawn by inversion, from exactly the law that is given."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import Sampling, sampling
from adaspec_jax.decoding.sampling import GREEDY

invert = jax.jit(sampling.invert)
draw = jax.jit(Sampling().draw)
BELOW_ONE = np.float32(1 - 2**-24)


def random_law(vocab, *, seed=0, scale=3.0):
    logits = np.random.default_rng(seed).normal(size=vocab) * scale
    return np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))


def draws(law, number, *, seed=0):
    keys = jax.random.split(jax.random.key(seed), number)
    return np.asarray(jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys, jnp.asarray(law)))


def test_a_draw_takes_two_random_numbers_a_row():
    program = str(jax.make_jaxpr(Sampling().draw)(jax.random.key(0), jnp.ones((5, 1000))))
    assert re.findall(r"random_bits\[\s*bit_width=32\s*shape=\(([^)]*)\)", program) == ["2, 5"]


@pytest.mark.parametrize("vocab", [2, 5, 130, 50_277])
def test_draws_follow_the_law(vocab):
    law = random_law(vocab)
    counts = np.bincount(draws(law, 100_000), minlength=vocab)
    # Groups of about equal mass, the rarest tokens together.
    order = np.argsort(law)
    group = np.minimum(np.cumsum(law[order].astype(np.float64)) * 200, 199).astype(int)
    _, group = np.unique(group, return_inverse=True)
    observed, expected = np.bincount(group, counts[order]), np.bincount(group, law[order]) * 100_000
    if expected[0] < 5:
        observed[1] += observed[0]
        expected[1] += expected[0]
        observed, expected = observed[1:], expected[1:]
    assert stats.chisquare(observed, expected / expected.sum() * 100_000).pvalue > 1e-4


def starts(token_at, number):
    """The first multiple of 2^-24 at which `token_at` has reached each of `number` places."""
    low, high = np.zeros(number, np.int64), np.full(number, 2**24)
    while (low < high).any():
        middle = (low + high) // 2
        reached = np.asarray(token_at(jnp.asarray(middle * 2.0**-24, jnp.float32))) >= np.arange(number)
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return low * 2.0**-24


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_every_token_of_a_large_vocabulary_has_its_probability(scale):
    vocab, columns = 151_936, 1187
    law = random_law(vocab, scale=scale)
    pick = jax.jit(jax.vmap(lambda u, w: invert(jnp.stack([u, w]), jnp.asarray(law))))
    masses = law.astype(np.float64).reshape(-1, columns)
    firsts = starts(lambda u: pick(u, jnp.zeros_like(u)) % columns, columns)
    shares = masses.sum(axis=0) / masses.sum()
    np.testing.assert_allclose(np.diff(firsts, append=1), shares, rtol=0, atol=5e-7)
    for column in (0, 500, 1186):
        middle = np.float32(firsts[column] + shares[column] / 2)
        firsts_inside = starts(lambda w, at=middle: pick(jnp.full_like(w, at), w) // columns, len(masses))
        inside = masses[:, column] / masses[:, column].sum()
        np.testing.assert_allclose(np.diff(firsts_inside, append=1), inside, rtol=0, atol=5e-7)


@pytest.mark.parametrize("vocab", [1, 2, 127, 128, 129, 1000])
def test_a_token_of_probability_zero_is_never_drawn(vocab):
    edges = np.array([0.0, 2**-24, 0.5, BELOW_ONE, 1.0], np.float32)
    uniform = jnp.asarray(np.stack(np.meshgrid(edges, edges)).reshape(2, -1))
    places = sorted({0, vocab // 3, vocab // 2, vocab - 1})
    for place in places:
        one_hot = np.eye(vocab, dtype=np.float32)[place]
        assert (invert(uniform, jnp.tile(one_hot, (25, 1))) == place).all()
    sparse = np.zeros(vocab, np.float32)
    sparse[places] = np.array([1e-30, 0.7, 1 / 3, 1e-8])[: len(places)]
    assert set(np.asarray(invert(uniform, jnp.tile(sparse, (25, 1)))).tolist()) <= set(places)


def test_the_edges_give_the_first_and_the_last_possible_token():
    law = jnp.asarray([0.0, 0.2, 0.3, 0.5, 0.0])
    assert invert(jnp.zeros(2), law) == 1
    assert invert(jnp.ones(2), law) == 3 == invert(jnp.full(2, BELOW_ONE), law)


@pytest.mark.parametrize("rows", [(), (1,), (3,), (2, 3), (2, 0)])
def test_any_rows_are_taken(rows):
    key, law = jax.random.key(0), jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(300), rows), jnp.float32)
    token = draw(key, law)
    assert token.shape == rows and token.dtype == jnp.int32
    np.testing.assert_array_equal(draw(key, 8 * law), token)  # rows may sum to anything


def test_greedy_takes_the_mode_whatever_the_key():
    law = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(300), 7), jnp.float32)
    for seed in range(3):
        np.testing.assert_array_equal(GREEDY.draw(jax.random.key(seed), law), jnp.argmax(law, axis=-1))


def test_rows_without_a_law_still_give_a_token_of_the_vocabulary():
    for row in (np.nan, 0.0):
        assert 0 <= draw(jax.random.key(0), jnp.full((300,), row)) < 300


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("temperature", [1e-3, 1e-9, 1e-20, 1e-30])
@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_the_law_near_zero_is_that_of_the_likeliest_tokens(temperature, filters, jitted):
    """Optimised as it is outside the tests, where logits over the temperature were rounded apart from their maximum."""
    logits_BV = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * 5
    logits_BV[:, -3:] -= 1e9
    logits_BV[1, [4, 7]] = logits_BV[1].max() + 1  # a tie
    exact_BV = logits_BV.astype(np.float64) - logits_BV.max(-1, keepdims=True)
    exact_BV = np.exp(exact_BV / temperature) / np.exp(exact_BV / temperature).sum(-1, keepdims=True)
    probs = Sampling(temperature, **filters).probs
    if jitted:
        probs = jax.jit(probs).lower(logits_BV).compile(compiler_options={"xla_backend_optimization_level": 3})
    np.testing.assert_allclose(probs(jnp.asarray(logits_BV)), exact_BV, atol=1e-6)


@pytest.mark.parametrize("temperature", [-1.0, 1e-31, 1e7, float("inf"), float("nan")])
def test_a_temperature_that_no_law_has_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be 0 .greedy. or from 1e-30 to 1e.06"):
        Sampling(temperature)
