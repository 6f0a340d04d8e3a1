"""Divergences and the selection rule against NumPy, optax and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax.training import divergences, selection


def laws(seed=0, shape=(3, 5, 17), scale=3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * scale, rng.normal(size=shape) * scale


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


BY_HAND = {
    "forward_kl": lambda q, p: (p * np.log(p / q)).sum(-1),
    "reverse_kl": lambda q, p: (q * np.log(q / p)).sum(-1),
    "jensen_shannon": lambda q, p: ((p * np.log(2 * p / (p + q))).sum(-1) + (q * np.log(2 * q / (p + q))).sum(-1)) / 2,
    "total_variation": lambda q, p: np.abs(p - q).sum(-1) / 2,
}


@pytest.mark.parametrize("name", divergences.DIVERGENCES)
def test_divergences_equal_their_definitions_in_float64(name):
    draft, target = laws()
    ours = divergences.DIVERGENCES[name](jnp.asarray(draft, jnp.float32), jnp.asarray(target, jnp.float32))
    assert ours.dtype == jnp.float32 and ours.shape == (3, 5)
    np.testing.assert_allclose(ours, BY_HAND[name](softmax(draft), softmax(target)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", divergences.DIVERGENCES)
def test_equal_laws_have_divergence_zero_and_bfloat16_is_computed_in_float32(name):
    draft, target = laws()
    function = divergences.DIVERGENCES[name]
    np.testing.assert_allclose(function(jnp.asarray(draft), jnp.asarray(draft) + 2.0), 0.0, atol=1e-6)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (draft, target)]
    ours = function(*half)
    assert ours.dtype == jnp.float32
    exact = BY_HAND[name](*(softmax(np.asarray(x, np.float64)) for x in half))
    np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [-jnp.inf, -1e9])
@pytest.mark.parametrize("name", divergences.DIVERGENCES)
def test_ruled_out_vocabulary_changes_neither_value_nor_gradient(name, masked):
    draft, target = (jnp.asarray(x, jnp.float32) for x in laws())
    padded = [jnp.pad(x, ((0, 0), (0, 0), (0, 4)), constant_values=masked) for x in (draft, target)]
    loss = lambda d, t: divergences.DIVERGENCES[name](d, t).sum()  # noqa: E731
    np.testing.assert_allclose(loss(*padded), loss(draft, target), rtol=1e-6)
    gradient = jax.grad(loss)(*padded)
    np.testing.assert_allclose(gradient[..., :-4], jax.grad(loss)(draft, target), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient[..., -4:], 0.0)


def test_forward_kl_agrees_with_optax():
    draft, target = (jnp.asarray(x, jnp.float32) for x in laws())
    theirs = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(draft), jax.nn.log_softmax(target))
    np.testing.assert_allclose(divergences.forward_kl(draft, target), theirs, rtol=1e-5)


def test_the_gap_keeps_digits_that_a_difference_of_two_cross_entropies_loses():
    rng = np.random.default_rng(1)
    target = rng.normal(size=(1, 64, 4096)) * 4
    reference = target + rng.normal(size=target.shape) * 2
    draft = reference + rng.normal(size=target.shape) * 1e-3
    p, r, q = (softmax(x) for x in (target, reference, draft))
    exact = (p * (np.log(r) - np.log(q))).sum(-1)
    draft, reference, target = (jnp.asarray(x, jnp.float32) for x in (draft, reference, target))
    ours = divergences.gap(divergences.forward_kl, draft, reference, target)
    law = jax.nn.softmax(target)
    naive = jnp.sum(law * -jax.nn.log_softmax(draft), -1) - jnp.sum(law * -jax.nn.log_softmax(reference), -1)
    assert np.abs(ours - exact).mean() < 0.7 * np.abs(naive - exact).mean()
    np.testing.assert_allclose(ours, exact, atol=2e-6)
    other = divergences.gap(divergences.total_variation, draft, reference, target)
    by_hand = BY_HAND["total_variation"](q, p) - BY_HAND["total_variation"](r, p)
    np.testing.assert_allclose(other, by_hand, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.4, 0.5, 0.73, 0.999, 1.0])
def test_selection_is_the_linear_quantile_over_valid_tokens(fraction):
    rng = np.random.default_rng(int(fraction * 1000))
    for _ in range(20):
        gap, mask = rng.normal(size=(4, 13)).astype(np.float32), rng.random((4, 13)) < 0.6
        threshold = np.quantile(gap[mask], np.float32(1) - np.float32(fraction))
        kept = np.asarray(selection.select_top_fraction(jnp.asarray(gap), jnp.asarray(mask), fraction))
        differ = kept != (mask & (gap >= threshold))
        assert np.abs(gap[differ] - threshold).max(initial=0) < 1e-6
        assert not (kept & ~mask).any()
        if fraction == 1.0:
            np.testing.assert_array_equal(kept, mask)


def test_selection_agrees_with_torch_quantile():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    for fraction in (0.1, 0.2, 0.4, 0.6, 0.7, 0.9):
        ours = jax.jit(lambda gap, mask, fraction=fraction: selection.select_top_fraction(gap, mask, fraction))
        longest = np.zeros((1, 512), np.float32)
        for n in (1, 2, 5, 11, 21, 31, 64, 101, 501):
            gap = rng.normal(size=n).astype(np.float32)
            theirs = gap >= torch.quantile(torch.tensor(gap), 1 - fraction).numpy()
            longest[0, :n] = gap
            kept = ours(jnp.asarray(longest), jnp.arange(512)[None] < n)
            np.testing.assert_array_equal(kept[0, :n], theirs, err_msg=f"{fraction} of {n}")


def test_selection_keeps_ties_and_takes_an_empty_mask():
    gap = jnp.asarray([[1.0, 1.0, 1.0, 0.0]])
    assert selection.select_top_fraction(gap, jnp.ones((1, 4), bool), 0.25).tolist() == [[True, True, True, False]]
    assert not selection.select_top_fraction(gap, jnp.zeros((1, 4), bool), 0.4).any()
    assert not jnp.isnan(selection.select_top_fraction(gap, jnp.zeros((1, 4), bool), 1.0)).any()
