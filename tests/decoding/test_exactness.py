"""By enumeration: what a lossless rule commits follows the target's law exactly, in every shape that it has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    GrowthDrafter,
    Proposal,
    Sampling,
    TreeDrafter,
    Verdict,
    block_verification,
    k_sequential,
    match_sample,
    pytree,
    rejection_sample,
    traversal_verification,
)
from adaspec_jax.decoding.acceptance import traversal
from adaspec_jax.decoding.acceptance.walk import walk
from adaspec_jax.decoding.sampling import GREEDY
from tests.decoding.bag_model import BagModel
from tests.decoding.enumeration import PROMPT, enumerated, judging_in_order, largest_error, last_test_first, plain_law
from tests.running import slow

TARGET, DRAFT = BagModel.random(0, vocab=3), BagModel.random(1, vocab=3)


def laws(vocab, seed=0):
    return BagModel.random(seed, vocab=vocab), BagModel.random(100 + seed, vocab=vocab)


@pytree()
class Likeliest:
    """What a drafter guesses when it decodes greedily, at any temperature: point masses."""

    drafter: object

    num_nodes = property(lambda self: self.drafter.num_nodes)
    depth = property(lambda self: self.drafter.depth)

    def init(self, prompt, slots):
        return self.drafter.init(prompt, slots)

    def propose(self, key, state, context):
        return self.drafter.propose(key, state, dataclasses.replace(context, sampling=GREEDY))


def chain(length, draft=DRAFT):
    return ChainDrafter(draft, length)


def tree(*branching, draft=DRAFT):
    return TreeDrafter(draft, branching)


def distinct(*branching, draft=DRAFT):
    return TreeDrafter(draft, branching, replacement=False)


def grown(**search):
    return GrowthDrafter(DRAFT, **{"budget": 4, "beams": 1, "branch": 2, "depth": 3} | search)


LEAVES_FIRST = {"order": judging_in_order(2, 0, 3, 1)}  # of a tree of two beginnings, each with one guess after it
FOUR = laws(4, seed=5)
FILTERED = Sampling(0.7, top_k=2)
NUCLEUS = Sampling(1.3, top_p=0.8)
CASES = {
    "chain": (rejection_sample, chain(3), {"horizon": 4}),
    "chain, less room than guesses": (rejection_sample, chain(3), {"horizon": 2}),
    "chain, ends of text": (rejection_sample, chain(2), {"eos": 0}),
    "chain, point masses": (rejection_sample, Likeliest(chain(3)), {"horizon": 4}),
    "independent siblings": (rejection_sample, tree(3), {"horizon": 2}),
    "independent tree": (rejection_sample, tree(2, 1), {}),
    "independent tree, nucleus": (rejection_sample, tree(2, 1), {"sampling": NUCLEUS}),
    "likeliest tree": (rejection_sample, Likeliest(tree(2, 2)), {}),
    "siblings that differ": (rejection_sample, distinct(3), {"horizon": 2}),
    "tree of siblings that differ": (rejection_sample, distinct(2, 1), {"eos": 1}),
    "more siblings than tokens": (rejection_sample, distinct(3, 1), {"sampling": FILTERED}),
    "match, chain": (match_sample, chain(2), {}),
    "match, tree": (match_sample, tree(2, 1), {}),
    "match, siblings that differ": (match_sample, distinct(2), {"sampling": NUCLEUS}),
    "match, likeliest tree": (match_sample, Likeliest(tree(2, 2)), {"eos": 2}),
    "block of one": (block_verification, chain(1), {"order": last_test_first(1)}),
    "block": (block_verification, chain(3), {"horizon": 4, "order": last_test_first(3)}),
    "block, less room than guesses": (block_verification, chain(3), {"horizon": 2, "order": last_test_first(3)}),
    "block, ends of text": (block_verification, chain(2), {"eos": 0, "order": last_test_first(2)}),
    "block, filtered": (block_verification, chain(2), {"sampling": NUCLEUS, "order": last_test_first(2)}),
    "block, point masses": (block_verification, Likeliest(chain(3)), {"horizon": 4, "order": last_test_first(3)}),
    "k-seq": (k_sequential, tree(3), {"horizon": 2}),
    "k-seq, tree": (k_sequential, tree(2, 1), {"eos": 0}),
    "k-seq, filtered": (k_sequential, tree(2), {"sampling": FILTERED}),
    "k-seq, chain": (k_sequential, chain(2), {}),
    "k-seq, siblings that differ": (k_sequential, distinct(2, 1), {}),
    "traversal, chain": (traversal_verification, chain(3), {"horizon": 4, "order": last_test_first(3)}),
    "traversal, independent siblings": (traversal_verification, tree(3), {"horizon": 2}),
    "traversal, independent tree": (traversal_verification, tree(2, 1), LEAVES_FIRST),
    "traversal, tree of siblings that differ": (traversal_verification, distinct(2, 1), {"eos": 1} | LEAVES_FIRST),
    "traversal, less room than guesses": (traversal_verification, distinct(2, 1), {"horizon": 1} | LEAVES_FIRST),
    "traversal, nucleus": (traversal_verification, distinct(2, 1), {"sampling": NUCLEUS} | LEAVES_FIRST),
    "traversal, branches at the end": (traversal_verification, distinct(1, 2), {"order": judging_in_order(1, 2, 0)}),
    "traversal, point masses": (
        traversal_verification,
        Likeliest(tree(2, 2)),
        {"order": judging_in_order(2, 3, 0, 4, 5, 1)},
    ),
    "grown tree": (rejection_sample, grown(), {}),
    "match, grown tree": (match_sample, grown(), {}),
    "match, grown tree of few": (match_sample, grown(budget=9, beams=3, branch=3, depth=2, share=0.6), {"eos": 2}),
}
SLOW = {name for name in CASES if "traversal" in name or "grown" in name}
SLOW -= {"traversal, tree of siblings that differ", "match, grown tree"}
SLOW |= {"k-seq, tree", "more siblings than tokens", "likeliest tree", "independent tree", "match, tree", "k-seq"}
SLOW |= {"independent tree, nucleus", "match, siblings that differ", "block, filtered", "k-seq, chain"}


@pytest.mark.parametrize("case", [slow(case) if case in SLOW else case for case in CASES])
def test_the_output_follows_the_targets_law_exactly(case):
    accept, drafter, knobs = CASES[case]
    assert largest_error(TARGET, drafter, accept, **knobs) < 1e-6


@pytest.mark.parametrize("vocab", [4, slow(5)])
@pytest.mark.parametrize("rule", ["rejection", "block", "distinct", "k-seq"])
def test_larger_vocabularies_are_as_exact(rule, vocab):
    target, draft = laws(vocab, seed=3)
    accept, drafter, order = {
        "rejection": (rejection_sample, chain(2, draft), None),
        "block": (block_verification, chain(2, draft), last_test_first(2)),
        "distinct": (rejection_sample, distinct(3, draft=draft), None),
        "k-seq": (k_sequential, tree(3, draft=draft), None),
    }[rule]
    assert largest_error(target, drafter, accept, order=order) < 1e-6


@pytest.mark.parametrize("seed", [0, slow(1)])
def test_one_guess_stays_with_the_probability_that_the_laws_share(seed):
    target, draft = laws(4, seed)
    p, q = ({text[0]: mass for text, mass in plain_law(m, (), Sampling(), 1).items()} for m in (target, draft))
    shared = sum(min(p[token], q[token]) for token in p)
    for accept, order in ((rejection_sample, None), (block_verification, last_test_first(1))):
        found = enumerated(target, chain(1, draft), accept, horizon=2, order=order).accepted
        assert abs(found - shared) < 1e-6
    found = enumerated(target, chain(1, draft), match_sample, horizon=2).accepted
    assert abs(found - sum(p[token] * q[token] for token in p)) < 1e-6


@pytest.mark.parametrize("seed", [0, slow(1), slow(2), slow(3)])
def test_a_block_keeps_more_than_one_token_after_another(seed):
    target, draft = laws(3, seed)
    one_by_one = enumerated(target, chain(3, draft), rejection_sample, horizon=4).accepted
    block = enumerated(target, chain(3, draft), block_verification, horizon=4, order=last_test_first(3)).accepted
    assert block > one_by_one + 1e-3


@pytest.mark.parametrize("seed", [0, slow(1), slow(2), slow(3)])
def test_siblings_that_differ_keep_more_than_k_seq_and_that_more_than_independent_ones(seed):
    target, draft = laws(4, seed)
    kept = [
        enumerated(target, drafter, accept, horizon=2).accepted
        for drafter, accept in (
            (distinct(3, draft=draft), rejection_sample),
            (tree(3, draft=draft), k_sequential),
            (tree(3, draft=draft), rejection_sample),
            (chain(1, draft), rejection_sample),
        )
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[1] + 1e-3 and kept[2] > kept[3] + 1e-3


@pytest.mark.parametrize("seed", [slow(0), slow(1), slow(2)])
@pytest.mark.parametrize("shape", [(2, 1), (1, 2)], ids=str)
def test_a_tree_keeps_more_when_it_is_judged_from_its_leaves(seed, shape):
    target, draft = laws(3, seed)
    order = {(2, 1): LEAVES_FIRST, (1, 2): {"order": judging_in_order(1, 2, 0)}}[shape]
    from_root = enumerated(target, distinct(*shape, draft=draft), rejection_sample).accepted
    from_leaves = enumerated(target, distinct(*shape, draft=draft), traversal_verification, **order).accepted
    assert from_leaves > from_root + 1e-3


def test_a_ratio_that_no_refusal_changes_is_found(monkeypatch):
    """Leaves first, and every node by its guesses' ratio alone."""
    when_tested = traversal._when_tested

    def unchanged(proposal, parents_BN, valid_BN, law_BMV):
        ratios = [jnp.ones(len(law_BMV))]
        for node, parent in enumerate((-1, -1, 0, 1)):
            at_B1 = proposal.tokens_BN[:, node : node + 1]
            p_B1, q_B1 = (
                jnp.take_along_axis(law_BV, at_B1, axis=1)
                for law_BV in (law_BMV[:, parent + 1], proposal.probs_BNV[:, node])
            )
            ratios.append(jnp.minimum(1.0, ratios[parent + 1] * (p_B1 / q_B1)[:, 0]))
        return jnp.stack(ratios, axis=1), when_tested(proposal, parents_BN, valid_BN, law_BMV)[1]

    monkeypatch.setattr(traversal, "_when_tested", unchanged)
    assert largest_error(TARGET, distinct(2, 1), traversal_verification, **LEAVES_FIRST) > 1e-3


@pytree()
class SoftLaw(Likeliest):
    """Guesses the draft's likeliest token and says that it was drawn from the draft's law."""

    def propose(self, key, state, context):
        proposal, after = super().propose(key, state, dataclasses.replace(context, opinion=True))
        return dataclasses.replace(proposal, probs_BNV=jax.nn.softmax(proposal.opinion_BNV), opinion_BNV=None), after


class UnmaskedLaw(TreeDrafter):
    """Siblings drawn without replacement that all state the law of the first."""

    def _children(self, key, logits_BWV, width, sampling):
        tokens_BN, _, valid_BN = super()._children(key, logits_BWV, width, sampling)
        return tokens_BN, jnp.repeat(sampling.probs(logits_BWV), width, axis=1), valid_BN


pytree("branching", "replacement")(UnmaskedLaw)


def judged_by_p_alone(key, proposal, logits_BMV, sampling):
    """Accepts a drawn guess with probability p[x], and corrects it as if that had been min(1, p[x] / q[x])."""
    accept_key, next_key = jax.random.split(key)
    p_BMV, tokens_BN = sampling.probs(logits_BMV), proposal.tokens_BN
    p_BN = jnp.take_along_axis(p_BMV[:, :-1], tokens_BN[..., None], axis=2)[..., 0]
    accepted_BN = jnp.cumprod(jax.random.uniform(accept_key, tokens_BN.shape) < p_BN, axis=1).astype(bool)
    stop_B11 = jnp.sum(accepted_BN, axis=1)[:, None, None]
    q_BMV = jnp.pad(proposal.probs_BNV, ((0, 0), (0, 1), (0, 0)))
    left_BV = jnp.take_along_axis(jnp.maximum(p_BMV - q_BMV, 0), stop_B11, axis=1)[:, 0]
    return Verdict(accepted_BN, jnp.ones_like(accepted_BN), sampling.draw(next_key, left_BV))


def residual_not_normalised(key, proposal, logits_BMV, sampling):
    """Siblings after a refused one are held against (p - q)+ as it is."""
    batch, nodes = proposal.tokens_BN.shape
    accept_key, next_key = jax.random.split(key)
    left_BV, uniform_BN = sampling.probs(logits_BMV)[:, 0], jax.random.uniform(accept_key, (batch, nodes))
    done_B, accepted, judged = jnp.zeros((batch,), bool), [], []
    for n in range(nodes):
        q_BV, token_B1 = proposal.probs_BNV[:, n], proposal.tokens_BN[:, n : n + 1]
        p_B, q_B = (jnp.take_along_axis(law, token_B1, axis=1)[:, 0] for law in (left_BV, q_BV))
        passes_B = ~done_B & (uniform_BN[:, n] * q_B < p_B)
        judged.append(~done_B)
        accepted.append(passes_B)
        left_BV = jnp.where((~done_B & ~passes_B)[:, None], jnp.maximum(left_BV - q_BV, 0), left_BV)
        done_B |= passes_B
    after_BMV = jnp.concatenate([left_BV[:, None], sampling.probs(logits_BMV)[:, 1:]], axis=1)
    stand_B11 = jnp.where(done_B, 1 + jnp.argmax(jnp.stack(accepted, 1), axis=1), 0)[:, None, None]
    law_BV = jnp.take_along_axis(after_BMV, stand_B11, axis=1)[:, 0]
    return Verdict(jnp.stack(accepted, 1), jnp.stack(judged, 1), sampling.draw(next_key, law_BV))


def accepts_a_little_more(key, proposal, logits_BMV, sampling):
    return walk(key, proposal, logits_BMV, sampling, lambda p: p * 1.001)


@pytest.mark.parametrize(
    ("drafter", "rule", "horizon"),
    [
        (chain(2, FOUR[1]), judged_by_p_alone, 3),
        (tree(3, draft=FOUR[1]), residual_not_normalised, 2),
        (SoftLaw(chain(2, FOUR[1])), rejection_sample, 3),
        (UnmaskedLaw(FOUR[1], (2,), False), rejection_sample, 2),
        (chain(2, FOUR[1]), accepts_a_little_more, 3),
    ],
    ids=["p alone", "not normalised", "argmax under a soft law", "siblings unmasked", "0.1% more"],
)
def test_a_wrong_rule_or_law_is_found(drafter, rule, horizon):
    assert largest_error(FOUR[0], drafter, rule, horizon=horizon) > 1e-5


def test_where_nothing_is_to_be_normalised_the_planted_rule_is_right():
    """So that it is the missing norm alone that the test above finds."""
    assert largest_error(FOUR[0], tree(1, draft=FOUR[1]), residual_not_normalised, horizon=2) < 1e-6


def test_boxes_cut_in_a_wrong_order_are_found_out():
    with pytest.raises(AssertionError, match="a box with two outcomes"):
        enumerated(TARGET, chain(3), block_verification, horizon=4)


def test_rules_say_what_they_cannot_judge():
    logits_BMV = jnp.zeros((2, 4, 3))
    in_a_tree = Proposal(jnp.zeros((2, 3), jnp.int32), np.asarray([-1, -1, 0]))
    with pytest.raises(ValueError, match="block verification is for chains"):
        block_verification(jax.random.key(0), in_a_tree, logits_BMV, Sampling())
    with pytest.raises(ValueError, match="K-SEQ needs the law"):
        k_sequential(jax.random.key(0), in_a_tree, logits_BMV, Sampling())
    assert k_sequential(jax.random.key(0), in_a_tree, logits_BMV, GREEDY).accepted_BN.any()


def test_the_instrument_draws_after_the_prompt_that_it_says():
    assert PROMPT == (1, 2) and abs(sum(plain_law(TARGET, (), Sampling(), 2).values()) - 1) < 1e-12
