"""A chain whose draft reads nothing in rounds without a guess goes on as one that always reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Analytical, Cascade, ChainDrafter, Context, Dialogue, Sampling, pytree
from tests.decoding.test_engine import KEY, decode, pair, ragged_prompt  # noqa: F401
from tests.running import slow


@pytree("rests")
class Sometimes:
    """Rounds of 3, 0, 0, 0, 0, 0, 2, 0 guesses, and again."""

    rests: bool

    def init(self, prompt):
        return jnp.zeros(prompt.lengths_B.shape, jnp.int32)

    def begin(self, rounds_B, context):
        return jnp.array([3, 0, 0, 0, 0, 0, 2, 0])[rounds_B % 8], rounds_B + 1

    def go_on(self, rounds_B, n, probs_BV, hidden_BD):
        return jnp.ones(rounds_B.shape, bool), rounds_B


FIELDS = ("tokens_BS", "lengths_B", "rounds_B", "accepted_BN", "judged_BN", "drafted_B", "histogram_BM", "rejected_BS")


@pytest.mark.parametrize("widths", [(), slow((0, 1))], ids=str)
def test_a_draft_that_rested_guesses_what_it_would_have_guessed(pair, widths):  # noqa: F811
    target, draft = pair
    knobs = {"eos_id": 7, "sampling": Sampling(0.7), "max_new_tokens": 60}
    resting, reading = (
        decode(target, ChainDrafter(draft, 3, Sometimes(rests), widths), ragged_prompt(4), **knobs)
        for rests in (True, False)
    )
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(resting, name), getattr(reading, name), err_msg=name)
    assert resting.accepted_BN.sum() > 0


def test_a_draft_that_rested_goes_on_in_a_dialogue(pair):  # noqa: F811
    """The second turn's counts are those of a draft that has read all of it."""
    target, draft = pair
    counts = []
    for rests in (True, False):
        drafter, said = ChainDrafter(draft, 3, Sometimes(rests)), [[5, 1, 2], [4, 3], [7], [9, 9, 9, 9]]
        talk = Dialogue(target, drafter, max_new_tokens=14, sampling=Sampling(), eos_id=-1)
        for _ in range(2):
            lengths_B = np.array(list(map(len, said)))
            tokens_BS = np.zeros((4, lengths_B.max()), np.int32)
            for row_S, row in zip(tokens_BS, said, strict=True):
                row_S[: len(row)] = row
            made = jax.device_get(talk.turn(Context(tokens_BS, lengths_B), KEY))
            said = [[*row[:end], 4, 1] for row, end in zip(made.tokens_BS.tolist(), made.lengths_B, strict=True)]
        counts.append((said, made.rounds_B.tolist(), made.accepted_BN.tolist()))
    assert counts[0] == counts[1] and np.sum(counts[0][2]) > 4


def test_inside_another_round_no_row_rests_because_its_text_was_cut_back(pair):  # noqa: F811
    """The larger model refuses nearly everything, the middle one nothing of its own draft: guessing always pays."""
    target, middle = pair
    seen = []

    @pytree("window", "probe")
    class Watched(Analytical):
        def begin(self, state, context):
            limit_B, state = Analytical.begin(self, state, context)
            jax.debug.callback(lambda limit: seen.append(int(limit)), limit_B[0])
            return limit_B, state

    stop = Watched({1: jnp.array([1.0, 1.01, 1.02, 1.03])}, prior=1.0)
    drafter = Cascade(ChainDrafter(middle, 3, stop), middle, length=6)
    made = decode(target, drafter, Context(np.array([[1, 2, 3]]), np.array([3])), eos_id=-1, max_new_tokens=12)
    jax.effects_barrier()
    assert made.rounds_B[0] > 3 and seen and min(seen) > 0, seen
