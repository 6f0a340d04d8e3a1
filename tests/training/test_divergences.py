"""Divergences and the selection rule against NumPy, optax and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax.errors import UserError
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
    "negative_log_acceptance": lambda q, p: -np.log(np.minimum(p, q).sum(-1)),
    "hybrid_acceptance": lambda q, p: (
        (w := np.exp(-3 * np.minimum(p, q).sum(-1))) * BY_HAND["forward_kl"](q, p)
        + (1 - w) * BY_HAND["total_variation"](q, p)
    ),
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


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_generalised_jensen_shannon_divergence_is_found_by_its_name(beta):
    draft, target = laws()
    p, q = softmax(target), softmax(draft)
    m = beta * p + (1 - beta) * q
    by_hand = beta * (p * np.log(p / m)).sum(-1) + (1 - beta) * (q * np.log(q / m)).sum(-1)
    function = divergences.find_divergence(f"jensen_shannon:{beta}")
    ours = function(jnp.asarray(draft, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(ours, by_hand, rtol=3e-5, atol=1e-6)
    assert divergences.find_divergence(f"jensen_shannon:{beta}") is function  # a jitted step is found again by it


@pytest.mark.parametrize("name", ["forward_lk", "forward_kl:0.1", "jensen_shannon:1", "jensen_shannon:x"])
def test_an_unknown_divergence_is_refused_in_one_line(name):
    with pytest.raises(UserError) as error:
        divergences.find_divergence(name)
    assert name.partition(":")[0] in str(error.value) and "\n" not in str(error.value)


def test_the_direct_losses_have_gradients_where_the_total_variation_has_none():
    """Two laws that hardly overlap: the acceptance is near zero, and so is its slope, but not its logarithm's."""
    target = jnp.zeros((1, 8)).at[0, 0].set(30.0)
    draft = jnp.zeros((1, 8)).at[0, 1].set(30.0)
    slope = {
        name: float(jnp.abs(jax.grad(lambda d, f=function: f(d, target)[0])(draft)).max())
        for name, function in divergences.DIVERGENCES.items()
    }
    assert slope["total_variation"] < 1e-6 and slope["negative_log_acceptance"] > 0.49
    assert slope["hybrid_acceptance"] > 0.49


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


def test_the_other_rules_keep_the_lowest_gaps_or_a_random_share():
    rng = np.random.default_rng(3)
    gap, mask = jnp.asarray(rng.normal(size=(8, 40)), jnp.float32), jnp.asarray(rng.random((8, 40)) < 0.7)
    key = jax.random.key(0)
    top, bottom, drawn = (
        np.asarray(rule(gap, mask, 0.4, key)) for rule in (selection.top, selection.bottom, selection.random)
    )
    assert np.asarray(gap)[bottom].max() < np.asarray(gap)[top].min()
    for kept in (top, bottom, drawn):
        assert not (kept & ~np.asarray(mask)).any() and abs(kept.sum() / mask.sum() - 0.4) < 0.01
    assert abs((drawn & top).sum() / drawn.sum() - 0.4) < 0.12  # what chance would give
    again = np.asarray(selection.random(gap, mask, 0.4, jax.random.key(1)))
    assert (again != drawn).any() and (np.asarray(selection.random(gap, mask, 1.0, key)) == np.asarray(mask)).all()


def test_a_rule_by_rows_is_the_rule_of_each_row():
    rng = np.random.default_rng(4)
    gap, mask = jnp.asarray(rng.normal(size=(6, 50)), jnp.float32), jnp.asarray(rng.random((6, 50)) < 0.7)
    each = selection.by_rows(selection.top)(gap, mask, 0.4, jax.random.key(0))
    pairs = selection.by_rows(selection.top, 3)(gap, mask, 0.4, jax.random.key(0))
    for row in range(6):
        alone = selection.select_top_fraction(gap[row : row + 1], mask[row : row + 1], 0.4)
        np.testing.assert_array_equal(each[row], alone[0])
    for first in (0, 2, 4):
        together = selection.select_top_fraction(gap[first : first + 2], mask[first : first + 2], 0.4)
        np.testing.assert_array_equal(pairs[first : first + 2], together)
    assert (np.asarray(each) != np.asarray(selection.select_top_fraction(gap, mask, 0.4))).any()
