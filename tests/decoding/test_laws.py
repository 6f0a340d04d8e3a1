"""What a drafter says of the law of its guesses decides whether the output keeps the target's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    NoDraft,
    Proposal,
    Sampling,
    TreeDrafter,
    block_verification,
    k_sequential,
    match_sample,
    rejection_sample,
)
from tests.decoding.test_engine import DRAFT, chi_square_p, decode, pair, ragged_prompt  # noqa: F401
from tests.running import slow

SHAPES = [slow((1,)), (3,), slow((2, 2, 1)), (1, 3), slow((4, 1, 1))]


def last_token(context):
    return jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)[:, 0]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Counting:
    """Guesses that the next tokens are the last one plus 1, 2, .. (modulo 4): no randomness, and no law."""

    parents: tuple[int, ...] = (-1, 0, 1)
    known: bool = True  # the shape, before anything is traced

    @property
    def num_nodes(self):
        return len(self.parents)

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        steps_1N = jnp.arange(1, self.num_nodes + 1)[None]
        tokens_BN = (last_token(context)[:, None] + steps_1N) % 4
        if self.parents == tuple(range(-1, self.num_nodes - 1)) and self.known:
            return Proposal(tokens_BN.astype(jnp.int32)), state
        parents_BN = jnp.broadcast_to(jnp.asarray(self.parents, jnp.int32)[None], tokens_BN.shape)
        return Proposal(tokens_BN.astype(jnp.int32), parents_BN), state


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Drawing:
    """One guess drawn from a law that depends on the last token, withdrawn `before` or `after` the draw, or never."""

    withdrawn: str = "never"
    with_law: bool = True
    num_nodes: int = 1

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        probs_BV = jax.nn.softmax(2 * DRAFT.table_VV[last_token(context)])
        token_B = Sampling().draw(key, probs_BV)
        drawn_B = jnp.take_along_axis(probs_BV, token_B[:, None], axis=1)[:, 0]
        weak_B = {"never": drawn_B < 0, "after": drawn_B < 0.4, "before": jnp.max(probs_BV, axis=1) < 0.8}[
            self.withdrawn
        ]
        return Proposal(
            token_B[:, None], valid_BN=~weak_B[:, None], probs_BNV=probs_BV[:, None] if self.with_law else None
        ), state


@pytest.mark.parametrize(
    "drafter",
    [Counting(), Counting(known=False), Counting((-1, -1, 0, 0, 1)), Counting((-1, -1, -1, -1, -1, 2))],
    ids=["chain", "chain in a tree", "tree", "equal siblings"],
)
def test_guesses_without_a_law_keep_the_targets(drafter):
    assert chi_square_p(drafter, rejection_sample, sampling=Sampling(temperature=0.8)) > 1e-4


@pytest.mark.parametrize("branching", SHAPES, ids=str)
def test_sampled_trees_of_every_shape_keep_the_targets_law(branching):
    assert chi_square_p(TreeDrafter(DRAFT, branching=branching), rejection_sample, seeds=(0,)) > 1e-4


@pytest.mark.parametrize(
    ("drafter", "accept"),
    [
        (ChainDrafter(DRAFT, 3), block_verification),
        (Counting(), block_verification),
        slow(TreeDrafter(DRAFT, (2, 1)), match_sample),
        slow(Counting((-1, -1, 0, 0, 1)), match_sample),
        slow(TreeDrafter(DRAFT, (3, 1)), k_sequential),
        (TreeDrafter(DRAFT, (2, 2), replacement=False), rejection_sample),
        slow(TreeDrafter(DRAFT, (5,), replacement=False), rejection_sample),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_lossless_rule_keeps_the_targets_law_round_after_round(drafter, accept):
    """All through the engine; `tests/decoding/test_exactness.py` has each rule's law without chance, for one round."""
    assert chi_square_p(drafter, accept, sampling=Sampling(0.8)) > 1e-4


@pytest.mark.parametrize("branching", SHAPES, ids=str)
def test_greedy_trees_of_every_shape_decode_as_plain(pair, branching):  # noqa: F811
    target, draft = pair
    plain = decode(target, NoDraft(), ragged_prompt(), eos_id=7)
    ours = decode(target, TreeDrafter(draft, branching=branching), ragged_prompt(), eos_id=7)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


def test_a_guess_withdrawn_for_what_was_drawn_biases_the_law():
    assert chi_square_p(Drawing("after"), rejection_sample) < 1e-6


@pytest.mark.parametrize(
    "drafter",
    [Drawing(), Drawing("before"), Drawing("after", with_law=False)],
    ids=["never", "before", "without a law"],
)
def test_a_guess_withdrawn_before_the_draw_or_without_a_law_does_not(drafter):
    assert chi_square_p(drafter, rejection_sample) > 1e-4
