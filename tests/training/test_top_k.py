"""The forward KL from a target's K likeliest tokens: its definition, its gradient, its limit and its bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.training.divergences import forward_kl
from adaspec_jax.training.top_k import top_k_forward_kl, top_k_law


def logits(seed=0, shape=(3, 5, 40)):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=shape) * 3, jnp.float32) for _ in range(2))


def softmax(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(draft, target, k):
    total = np.zeros(draft.shape[:-1])
    for at in np.ndindex(total.shape):
        p, q = softmax(target[at]), softmax(draft[at])
        top = np.argsort(-p, kind="stable")[:k]
        total[at] = (p[top] * np.log(p[top] / q[top])).sum()
        if k < len(p):
            rest = np.setdiff1d(np.arange(len(p)), top)
            total[at] += p[rest].sum() * np.log(p[rest].sum() / q[rest].sum())
    return total


@pytest.mark.parametrize("k", [1, 4, 16])
def test_it_is_the_divergence_of_k_plus_one_events(k):
    draft, target = logits()
    ours = top_k_forward_kl(draft, *top_k_law(target, k))
    np.testing.assert_allclose(ours, by_hand(draft, target, k), rtol=1e-4, atol=1e-6)
    assert (ours <= forward_kl(draft, target) + 1e-6).all()


def test_it_grows_with_k_to_the_forward_kl_and_its_gradient():
    draft, target = logits(1)
    values = [top_k_forward_kl(draft, *top_k_law(target, k)) for k in (1, 2, 8, 32, 40)]
    assert all((more >= less - 1e-6).all() for less, more in zip(values, values[1:], strict=False))
    np.testing.assert_allclose(values[-1], forward_kl(draft, target), rtol=1e-5)
    ours = jax.grad(lambda d: top_k_forward_kl(d, *top_k_law(target, 40)).sum())(draft)
    np.testing.assert_allclose(ours, jax.grad(lambda d: forward_kl(d, target).sum())(draft), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_the_gradient_is_that_of_finite_differences(k):
    draft, target = logits(2, (1, 2, 40))
    kept = top_k_law(target, k)
    ours = np.asarray(jax.grad(lambda d: top_k_forward_kl(d, *kept).sum())(draft))
    rng, at = np.random.default_rng(0), np.asarray(draft, np.float64)
    for _ in range(5):
        direction = rng.normal(size=at.shape)
        slope = (by_hand(at + 1e-5 * direction, target, k) - by_hand(at - 1e-5 * direction, target, k)).sum() / 2e-5
        assert (ours * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_a_small_tail_keeps_its_digits_and_ruled_out_tokens_weigh_nothing():
    draft, target = (x * 8 for x in logits(3))  # most of the mass on few tokens
    ours = top_k_forward_kl(draft, *top_k_law(target, 8))
    np.testing.assert_allclose(ours, by_hand(draft, target, 8), rtol=1e-4, atol=1e-6)
    padded = [jnp.pad(x, ((0, 0), (0, 0), (0, 30)), constant_values=-1e9) for x in (draft, target)]
    whole, gradient = jax.value_and_grad(lambda d: top_k_forward_kl(d, *top_k_law(padded[1], 64)).sum())(padded[0])
    np.testing.assert_allclose(whole, forward_kl(draft, target).sum(), rtol=1e-4)
    assert np.isfinite(gradient).all() and not np.asarray(gradient[..., 40:]).any()
