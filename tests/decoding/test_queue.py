"""A queue decodes what batches decode; only the company of a row changes."""

import jax
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Proposal, Sampling, TreeDrafter, generate_from_queue
from tests.decoding.test_engine import GREEDY, KEY, Head, decode, pair, ragged_prompt  # noqa: F401

FIELDS = ("tokens_BS", "lengths_B", "rounds_B", "accepted_BN", "judged_BN", "drafted_B", "origin_BS", "rejected_BS")


def from_queue(target, drafter, prompts, **knobs):
    knobs = {"max_new_tokens": 23, "sampling": GREEDY, "eos_id": 7} | knobs
    return jax.device_get(generate_from_queue(target, drafter, prompts, KEY, **knobs))


@pytest.mark.parametrize("rows, refill", [(1, 1), (3, 1), (3, 3), (8, None), (30, 2)])
@pytest.mark.parametrize("kind", ["plain", "chain", "tree"])
def test_every_prompt_gets_what_a_batch_gives_it(pair, rows, refill, kind):  # noqa: F811
    target, draft = pair
    drafter = {"plain": NoDraft(), "chain": ChainDrafter(draft, length=3), "tree": TreeDrafter(draft)}[kind]
    prompts = ragged_prompt(13)
    expected = decode(target, drafter, prompts, eos_id=7)
    ours = from_queue(target, drafter, prompts, rows=rows, refill=refill)
    assert len(set(expected.rounds_B.tolist())) > 2  # rows end at different times
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), err_msg=field)


def test_hidden_states_follow_their_rows_through_the_queue(pair):  # noqa: F811
    target, _ = pair
    prompts, head = ragged_prompt(13), Head(target.table_VV)
    prompts.lengths_B[:] = 6
    ours = from_queue(target, head, prompts, rows=3, refill=1)
    expected = decode(target, head, prompts, eos_id=7)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), err_msg=field)
    assert ours.accepted_BN.sum() == ours.judged_BN.sum() > 0  # a row given another's state would guess wrong


def test_sampled_rows_keep_the_targets_law(pair):  # noqa: F811
    target, draft = pair
    count, sampling = 4000, Sampling(temperature=1.0)
    prompts = Context(np.tile([[1, 2]], (count, 1)), np.full(count, 2))
    knobs = {"rows": 512, "refill": 64, "sampling": sampling, "max_new_tokens": 3, "eos_id": -1}
    ours = from_queue(target, ChainDrafter(draft, length=2), prompts, **knobs)
    law = np.asarray(jax.nn.softmax(target(np.array([[1, 2]]))[0][0, -1]), np.float64)
    found = np.bincount(ours.tokens_BS[:, 2], minlength=len(law))
    chi2 = ((found - count * law) ** 2 / (count * law)).sum()
    assert stats.chi2.sf(chi2, len(law) - 1) > 1e-4


def test_impossible_sizes_and_states_are_refused(pair):  # noqa: F811
    target, _ = pair
    for knobs in ({"rows": 0}, {"rows": 2, "refill": 3}, {"rows": 2, "refill": 0}):
        with pytest.raises(ValueError, match="rows must be at least 1"):
            from_queue(target, NoDraft(), ragged_prompt(4), **knobs)

    class Counting:
        num_nodes = 1

        def init(self, prompt, slots):
            return jax.numpy.zeros((), int)

        def propose(self, key, state, context):
            return Proposal(jax.numpy.zeros((context.lengths_B.shape[0], 1), jax.numpy.int32)), state + 1

    with pytest.raises(ValueError, match="the batch first in every array of a drafter's state"):
        from_queue(target, Counting(), ragged_prompt(4), rows=2)
