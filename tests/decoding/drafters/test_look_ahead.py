"""Look-ahead slots: the target's own next token comes with its guesses, stays, and is counted as no guess."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import NoDraft, Sampling, generate
from adaspec_jax.decoding.drafters.target.look_ahead import LookAheadDrafter
from adaspec_jax.decoding.types import GUESS
from tests.decoding.drafters.heads import VOCAB, on, target, untrained
from tests.decoding.test_engine import ragged_prompt


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_round_is_two_target_calls_and_commits_two_tokens_at_least_that_are_no_guesses(temperature):
    drafter = LookAheadDrafter(on(untrained("pass", target())), 2)
    how = {"max_new_tokens": 16, "sampling": Sampling(temperature), "eos_id": -1}
    prompt = ragged_prompt(4, vocab=VOCAB)
    made = jax.device_get(generate(target(), drafter, prompt, jax.random.key(0), **how))
    assert not made.accepted_BN[:, 0].any() and not made.judged_BN[:, 0].any()
    assert made.judged_BN[:, 1].sum() > made.accepted_BN[:, 1].sum()
    guesses_B, new_B = (made.origin_BS == GUESS).sum(axis=1), made.lengths_B - prompt.lengths_B
    np.testing.assert_array_equal(guesses_B, made.accepted_BN.sum(axis=1))
    # A call each for what looks ahead and for what verifies; the last round may have room for the next token alone.
    rounds_B = made.histogram_BM.sum(axis=1)
    np.testing.assert_array_equal(made.rounds_B, 2 * rounds_B)
    assert (new_B - guesses_B >= 2 * rounds_B - 1).all() and (rounds_B <= 8).all()
    assert (made.drafted_B <= 2 * rounds_B).all() and made.drafted_B.sum() > 0
    if not temperature:
        plain = generate(target(), NoDraft(), prompt, jax.random.key(0), **how)
        np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)


def test_a_length_beyond_the_slots_is_that_of_the_slots_and_one_below_one_is_refused():
    head = on(untrained("pass", target()))
    assert LookAheadDrafter(head, 9).length == 3
    with pytest.raises(ValueError, match="length is 0; it must be at least 1"):
        LookAheadDrafter(head, 0)
