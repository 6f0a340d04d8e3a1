"""The walk forms no more laws than it needs, and decides as the plain rule does that forms them all."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import Lenient, Proposal, Sampling, Verdict, rejection_sample
from adaspec_jax.decoding.acceptance.walk import walk
from tests.running import slow

VOCAB = 6
SHAPES = {
    "chain": [-1, 0, 1, 2],
    "siblings": [-1, -1, -1],
    "tree": [-1, -1, 0, 0, 1, 1, 2, 4],
    "bush": [-1, -1, -1, -1, 0, 1, 2, 3],
}


def plain_rule(key, proposal, logits_BMV, sampling, raised=lambda p: p):
    """Node after node in order, with the whole residual of every row."""
    batch, nodes = proposal.tokens_BN.shape
    parents = np.arange(-1, nodes - 1) if proposal.parents_BN is None else proposal.parents_BN
    parents_BN = jnp.broadcast_to(parents, (batch, nodes))
    valid_BN = jnp.ones((batch, nodes), bool) if proposal.valid_BN is None else proposal.valid_BN
    accept_key, next_key = jax.random.split(key)
    target_BMV, uniform_BN = sampling.probs(logits_BMV), jax.random.uniform(accept_key, (batch, nodes))
    row_B, stand_B, residual_BV = jnp.arange(batch), jnp.full((batch,), -1), target_BMV[:, 0]
    accepted, judged = [], []
    for n in range(nodes):
        token_B = proposal.tokens_BN[:, n]
        guess_BV = jax.nn.one_hot(token_B, target_BMV.shape[-1])
        guess_BV = guess_BV if proposal.probs_BNV is None else proposal.probs_BNV[:, n]
        judged_B = valid_BN[:, n] & (parents_BN[:, n] == stand_B)
        passes_B = uniform_BN[:, n] * guess_BV[row_B, token_B] < raised(residual_BV[row_B, token_B])
        left_BV = jnp.maximum(residual_BV - guess_BV, 0)
        mass_B1 = left_BV.sum(axis=1, keepdims=True)
        left_BV = jnp.where(mass_B1 > 0, left_BV / jnp.where(mass_B1 > 0, mass_B1, 1), residual_BV)
        residual_BV = jnp.where((judged_B & ~passes_B)[:, None], left_BV, residual_BV)
        residual_BV = jnp.where((judged_B & passes_B)[:, None], target_BMV[:, n + 1], residual_BV)
        stand_B = jnp.where(judged_B & passes_B, n, stand_B)
        accepted.append(judged_B & passes_B)
        judged.append(judged_B)
    return Verdict(jnp.stack(accepted, 1), jnp.stack(judged, 1), sampling.draw(next_key, residual_BV))


def random_round(seed, parents, *, laws, given="numpy", batch=4000, valid=True, vocab=VOCAB):
    """Guesses drawn from laws near the target's; siblings share theirs, and may be equal."""
    rng = np.random.default_rng(seed)
    nodes = len(parents)
    logits_BMV = jnp.asarray(rng.normal(size=(batch, nodes + 1, vocab)) * 1.5, jnp.float32)
    at = np.asarray(parents) + 1
    noise = rng.normal(size=(batch, nodes + 1, vocab))[:, at]
    probs_BNV = jax.nn.softmax(logits_BMV[:, at] + jnp.asarray(noise, jnp.float32))
    forms = {
        "none": None,
        "numpy": np.asarray(parents, np.int32),
        "rows": np.tile(np.asarray(parents, np.int32), (batch, 1)),
        "jax": jnp.tile(jnp.asarray(parents, jnp.int32), (batch, 1)),
    }
    proposal = Proposal(
        Sampling().draw(jax.random.key(seed), probs_BNV),
        parents_BN=forms[given],
        valid_BN=jnp.asarray(rng.random((batch, nodes)) < 0.9) if valid else None,
        probs_BNV=probs_BNV if laws else None,
    )
    return proposal, logits_BMV


def both(proposal, logits_BMV, sampling, rule=rejection_sample, raised=lambda p: p):
    """The rule's verdict and the plain one, compiled; parents in NumPy stay so."""

    def run(rule):
        known = proposal.parents_BN if isinstance(proposal.parents_BN, np.ndarray) else None

        def verdict(key, tokens, parents, valid, probs, logits):
            parents = known if known is not None else parents
            return rule(key, Proposal(tokens, parents, valid, probs), logits, sampling)

        traced = None if known is not None else proposal.parents_BN
        arrays = (proposal.tokens_BN, traced, proposal.valid_BN, proposal.probs_BNV, logits_BMV)
        return jax.jit(verdict)(jax.random.key(7), *arrays)

    return run(rule), run(lambda *given: plain_rule(*given, raised))


@pytest.mark.parametrize(
    ("shape", "laws", "given"),
    [
        ("chain", True, "none"),
        ("chain", False, "none"),
        slow("chain", True, "numpy"),
        ("chain", True, "jax"),
        ("siblings", False, "numpy"),
        ("siblings", True, "jax"),
        slow("tree", False, "jax"),
        ("tree", False, "rows"),
        ("tree", True, "numpy"),
        slow("bush", False, "numpy"),
        ("bush", True, "rows"),
    ],
)
def test_with_the_same_uniforms_the_plain_rule_decides_the_same(shape, laws, given):
    proposal, logits_BMV = random_round(len(shape), SHAPES[shape], laws=laws, given=given, valid=given != "numpy")
    ours, plain = both(proposal, logits_BMV, Sampling())
    np.testing.assert_array_equal(ours.accepted_BN, plain.accepted_BN)
    np.testing.assert_array_equal(ours.judged_BN, plain.judged_BN)
    assert (ours.next_token_B == plain.next_token_B).mean() > 0.999  # the residuals are equal up to rounding
    assert (ours.judged_BN & ~ours.accepted_BN).any(axis=0).all() and ours.accepted_BN.any(axis=0).all()


FILTERS = [Sampling(0.6), Sampling(top_k=2), Sampling(0.9, top_p=0.7)]
FILTERED = list(itertools.product([("chain", True), ("tree", False), ("tree", True)], FILTERS))
QUICK = FILTERED[::4]  # every shape and every filter once


@pytest.mark.parametrize(
    "shape, laws, sampling", [(*a, b) if (a, b) in QUICK else slow(*a, b) for a, b in FILTERED], ids=str
)
def test_filters_change_both_alike(shape, laws, sampling):
    proposal, logits_BMV = random_round(3, SHAPES[shape], laws=laws)
    ours, plain = both(proposal, logits_BMV, sampling)
    np.testing.assert_array_equal(ours.accepted_BN, plain.accepted_BN)
    np.testing.assert_array_equal(ours.judged_BN, plain.judged_BN)
    assert (ours.next_token_B == plain.next_token_B).mean() > 0.999


@pytest.mark.parametrize(
    ("shape", "laws"), [("chain", True), slow("chain", False), ("tree", False), slow("tree", True)]
)
def test_lenience_raises_what_is_left_at_every_test(shape, laws):
    proposal, logits_BMV = random_round(4, SHAPES[shape], laws=laws)
    ours, plain = both(proposal, logits_BMV, Sampling(), Lenient(0.5), lambda p: p / 0.5)
    np.testing.assert_array_equal(ours.accepted_BN, plain.accepted_BN)
    np.testing.assert_array_equal(ours.judged_BN, plain.judged_BN)
    assert (ours.next_token_B == plain.next_token_B).mean() > 0.999


@pytest.mark.parametrize("shape", ["siblings", "tree", "bush"])
def test_the_token_after_the_root_follows_the_targets_law_whatever_the_points_are(shape):
    rng, rows = np.random.default_rng(1), 40_000
    tokens_N = rng.integers(0, 4, len(SHAPES[shape]))
    logits_MV = rng.normal(size=(len(tokens_N) + 1, 4))
    proposal = Proposal(jnp.tile(jnp.asarray(tokens_N, jnp.int32), (rows, 1)), np.asarray(SHAPES[shape]))
    logits_BMV = jnp.broadcast_to(jnp.asarray(logits_MV, jnp.float32), (rows, *logits_MV.shape))
    ours, _ = both(proposal, logits_BMV, Sampling())
    first_B, below_N = np.asarray(ours.next_token_B), np.asarray(SHAPES[shape]) == -1
    for node in np.flatnonzero(below_N):
        first_B = np.where(ours.accepted_BN[:, node], tokens_N[node], first_B)
    expected = np.asarray(jax.nn.softmax(logits_BMV[0, 0])).astype(np.float64)
    observed = np.bincount(first_B, minlength=4)
    assert stats.chisquare(observed, expected / expected.sum() * rows).pvalue > 1e-4


@pytest.mark.parametrize("laws", [True, False])
def test_where_nothing_is_left_the_refused_law_stays(laws):
    """A refusal that only rounding allows: here a rule that refuses everything, of a guess that is certain."""
    certain_BNV = jax.nn.one_hot(jnp.asarray([[2, 2]]), VOCAB)
    logits_BMV = jnp.log(jax.nn.one_hot(jnp.asarray([[2, 3, 3]]), VOCAB))
    for parents in (None, np.asarray([-1, -1])):
        proposal = Proposal(jnp.asarray([[2, 2]]), parents, probs_BNV=certain_BNV if laws else None)
        verdict = walk(jax.random.key(0), proposal, logits_BMV, Sampling(), lambda p: p - 1)
        assert not verdict.accepted_BN.any() and verdict.next_token_B == 2


def carried(jaxpr):
    """Sizes of the arrays that loops and branches of a program hand on."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("while", "scan", "cond"):
            yield from (variable.aval.size for variable in equation.outvars)
        for value in equation.params.values():
            for sub in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(sub, "jaxpr"):
                    yield from carried(sub.jaxpr)
                elif hasattr(sub, "eqns"):
                    yield from carried(sub)


@pytest.mark.parametrize(
    ("shape", "laws", "most"), [("chain", True, 0), ("chain", False, 0), ("bush", False, 16), ("bush", True, 2000)]
)
def test_no_law_is_handed_from_node_to_node_where_scalars_do(shape, laws, most):
    proposal, logits_BMV = random_round(0, SHAPES[shape], laws=laws, batch=2, vocab=1000)
    program = jax.make_jaxpr(lambda logits: rejection_sample(jax.random.key(0), proposal, logits, Sampling()))
    assert max(carried(program(logits_BMV).jaxpr), default=0) <= most
