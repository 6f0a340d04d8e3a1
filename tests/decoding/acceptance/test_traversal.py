"""Traversal verification by itself: a reading that goes from node to node, and chains beside block verification."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Proposal, Sampling, block_verification, rejection_sample, traversal_verification
from adaspec_jax.decoding.sampling import GREEDY, most_likely

KEY = jax.random.key(7)


class Likeliest(Sampling):
    """Draws the likeliest token, so that a verdict shows the law that it draws from."""

    def draw(self, key, probs_V):
        return most_likely(probs_V)


def random_round(seed, *, batch=48, nodes=7, vocab=5, chain=False, law=True):
    rng = np.random.default_rng(seed)
    parents_BN = np.tile(np.arange(-1, nodes - 1), (batch, 1))
    valid_BN = np.cumprod(rng.random((batch, nodes)) < 0.9, axis=1).astype(bool)
    if not chain:
        parents_BN = np.stack([rng.integers(-1, n, batch) if n else np.full(batch, -1) for n in range(nodes)], axis=1)
        valid_BN = rng.random((batch, nodes)) < 0.9
    logits_BMV, draft_BNV = rng.normal(size=(batch, nodes + 1, vocab)), rng.normal(size=(batch, nodes, vocab))
    proposal = Proposal(
        jnp.asarray(rng.integers(0, vocab, (batch, nodes)), jnp.int32),
        None if chain else jnp.asarray(parents_BN, jnp.int32),
        jnp.asarray(valid_BN),
        jax.nn.softmax(jnp.asarray(draft_BNV, jnp.float32)) if law else None,
    )
    return proposal, jnp.asarray(logits_BMV, jnp.float32)


def read(tokens, parents, valid, q, p, uniform, *, slip=None):
    """(the accepted path, the law of what follows): down to a leaf, up by refusals, down again to the next sibling."""
    ratio, law = {-1: 1.0}, {node - 1: p[node] for node in range(len(p))}
    waiting = {node: [n for n in range(len(tokens)) if parents[n] == node and valid[n]] for node in ratio | law}
    if slip == "last sibling first":
        waiting = {node: children[::-1] for node, children in waiting.items()}
    at = -1
    while True:
        if waiting[at]:
            child = waiting[at].pop(0)
            ratio[child] = min(1.0, ratio[at] * law[at][tokens[child]] / q[child][tokens[child]])
            at = child
        elif at < 0 or uniform[at] < ratio[at]:
            break
        else:
            above = parents[at]
            left = np.maximum(ratio[above] * law[above] - q[at], 0)
            if slip != "ratio kept":
                ratio[above] = left.sum() / (left.sum() + 1 - ratio[above])
            if left.any():  # else nothing is left, and no ratio either
                law[above] = left / left.sum()
            at = above
    path, node = [], at
    while node >= 0:
        path.append(node)
        node = parents[node]
    return sorted(path), law[at]


def reading(seed, slip=None, law=True):
    """Accepted paths and likeliest next tokens, row by row."""
    proposal, logits_BMV = random_round(seed, law=law)
    q_BNV = proposal.probs_BNV
    if not law:
        q_BNV = jax.nn.one_hot(proposal.tokens_BN, logits_BMV.shape[-1])
    p_BMV = jax.nn.softmax(logits_BMV)
    uniform_BN = jax.random.uniform(jax.random.split(KEY)[0], proposal.tokens_BN.shape)
    choices = proposal.tokens_BN, proposal.parents_BN, proposal.valid_BN
    laws = (np.asarray(law_BNX, np.float64) for law_BNX in (q_BNV, p_BMV, uniform_BN))
    rows = zip(*(np.asarray(choice_BN).tolist() for choice_BN in choices), *laws, strict=True)
    read_rows = [read(*row, slip=slip) for row in rows]
    return [path for path, _ in read_rows], [int(np.argmax(law)) for _, law in read_rows]


@pytest.mark.parametrize("law", [True, False], ids=["drawn", "point masses"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_tree_is_judged_as_by_going_from_node_to_node(seed, law):
    proposal, logits_BMV = random_round(seed, law=law)
    verdict = traversal_verification(KEY, proposal, logits_BMV, Likeliest())
    found = [np.flatnonzero(row).tolist() for row in verdict.accepted_BN], np.asarray(verdict.next_token_B).tolist()
    assert found == reading(seed, law=law)
    assert {len(path) for path in found[0]} >= {0, 1, 2}
    if law:
        assert all(found != reading(seed, slip) for slip in ("last sibling first", "ratio kept"))


@pytest.mark.parametrize("law", [True, False], ids=["drawn", "point masses"])
def test_a_chain_is_judged_as_a_block(law):
    proposal, logits_BMV = random_round(3, batch=400, nodes=4, chain=True, law=law)
    tree, block = (
        rule(KEY, proposal, logits_BMV, Likeliest()) for rule in (traversal_verification, block_verification)
    )
    jax.tree.map(np.testing.assert_array_equal, tree, block)
    assert set(np.asarray(block.accepted_BN).sum(axis=1)) == {0, 1, 2, 3, 4}
    other = rejection_sample(KEY, proposal, logits_BMV, Likeliest())
    assert (other.accepted_BN.sum() < block.accepted_BN.sum()) == law


def test_greedy_is_every_rules():
    proposal, logits_BMV = random_round(5)
    both = (rule(KEY, proposal, logits_BMV, GREEDY) for rule in (traversal_verification, rejection_sample))
    jax.tree.map(np.testing.assert_array_equal, *both)
