"""Rounds that end early, verified at the width that is in use: fewer guesses, the same text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import ChainDrafter, Confident, Context, NoDraft, Sampling, pytree
from tests.decoding.test_engine import decode, pair, ragged_prompt  # noqa: F401

FIELDS = ("tokens_BS", "lengths_B", "rounds_B", "accepted_BN", "judged_BN", "drafted_B", "histogram_BM", "rejected_BS")


@pytree()
class Counting:
    """The n-th round of a row has n % 4 guesses."""

    def init(self, prompt):
        return jnp.zeros(prompt.lengths_B.shape, jnp.int32)

    def begin(self, rounds_B, context):
        return rounds_B % 4, rounds_B + 1

    def go_on(self, rounds_B, n, probs_BV, hidden_BD):
        return jnp.ones(rounds_B.shape, bool), rounds_B


def same(ours, expected):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)


def test_a_rule_that_never_stops_is_the_plain_chain(pair):  # noqa: F811
    target, draft = pair
    for knobs in ({}, {"sampling": Sampling(temperature=0.7)}):
        expected = decode(target, ChainDrafter(draft, length=5), ragged_prompt(), **knobs)
        same(decode(target, ChainDrafter(draft, 5, Confident(0.0)), ragged_prompt(), **knobs), expected)


def test_a_limit_is_a_shorter_chain(pair):  # noqa: F811
    target, draft = pair
    ours = decode(target, ChainDrafter(draft, 5, Confident(0.0, limit=2)), ragged_prompt(), eos_id=7)
    short = decode(target, ChainDrafter(draft, length=2), ragged_prompt(), eos_id=7)
    np.testing.assert_array_equal(ours.accepted_BN[:, :2], short.accepted_BN)
    np.testing.assert_array_equal(ours.drafted_B, short.drafted_B)
    assert ours.judged_BN[:, 2:].sum() == 0


@pytest.mark.parametrize("stop", [Confident(0.5), Confident(2.0), Counting()], ids=["confident", "never", "counting"])
@pytest.mark.parametrize("widths", [(), (1, 3), (0,)], ids=str)
def test_stopping_and_widths_change_no_token(pair, stop, widths):  # noqa: F811
    target, draft = pair
    plain = decode(target, NoDraft(), ragged_prompt(), eos_id=7)
    ours = decode(target, ChainDrafter(draft, 5, stop, widths), ragged_prompt(), eos_id=7)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    same(ours, decode(target, ChainDrafter(draft, 5, stop), ragged_prompt(), eos_id=7))
    if isinstance(stop, Counting):
        assert ours.histogram_BM[:, 4:].sum() == 0 < ours.accepted_BN.sum()
    elif float(stop.threshold) > 1:
        assert ours.drafted_B.sum() == 0


def test_confidence_raises_the_share_that_is_accepted(pair):  # noqa: F811
    target, draft = pair
    shares = {}
    for name, stop in (("all", None), ("confident", Confident(0.8))):
        made = decode(target, ChainDrafter(draft, 5, stop), ragged_prompt(64))
        shares[name] = made.accepted_BN.sum() / made.judged_BN.sum()
    assert shares["confident"] > shares["all"] + 0.02


@pytest.mark.parametrize("widths", [(), (1,)], ids=str)
def test_a_sampled_chain_that_stops_keeps_the_targets_law(pair, widths):  # noqa: F811
    target, draft = pair
    count, drafter = 20_000, ChainDrafter(draft, 3, Confident(0.4), widths)
    prompt = Context(np.tile([[1, 2]], (count, 1)), np.full(count, 2))
    ours = decode(target, drafter, prompt, sampling=Sampling(temperature=1.0), max_new_tokens=2)
    law = np.asarray(jax.nn.softmax(target(np.array([[1, 2]]))[0][0, -1]), np.float64)
    found = np.bincount(ours.tokens_BS[:, 2], minlength=len(law))
    chi2 = ((found - count * law) ** 2 / (count * law)).sum()
    assert stats.chi2.sf(chi2, len(law) - 1) > 1e-4
    follow = [target(np.array([[1, 2, token]]))[0][0, -1] for token in range(len(law))]
    second = law @ np.asarray(jax.nn.softmax(jnp.stack(follow), axis=-1), np.float64)
    found = np.bincount(ours.tokens_BS[:, 3], minlength=len(law))
    chi2 = ((found - count * second) ** 2 / (count * second)).sum()
    assert stats.chi2.sf(chi2, len(law) - 1) > 1e-4
