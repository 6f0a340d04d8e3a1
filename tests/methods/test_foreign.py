"""Methods of a draft with a tokenizer of its own decode the target's text, compile once, and say what they need."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import NoDraft, Sampling, engine, generate, generate_from_queue
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.bench import entries
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.methods.foreign import FOREIGN
from tests.decoding.foreign import Words, bag_of, mixed
from tests.decoding.test_engine import GREEDY, KEY, pair, ragged_prompt  # noqa: F401

NAMES = [method.name for method in FOREIGN]
WORDS = mixed(11, 7, 4, seed=3, beginning=(2,))


@pytest.fixture
def given(pair):  # noqa: F811
    foreign = WORDS.foreign(bag_of(pair[0], WORDS), room=3)
    return Given(target=pair[0], foreign={"d": foreign}, draft_length=4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_is_plain_decodings_in_batches_and_in_queues(given, name):
    method = METHODS[name]
    drafter, accepted = method.make(given), 0
    for prompt, knobs in (
        (ragged_prompt(4), {"max_new_tokens": 23, "eos_id": (7, 2)}),
        (ragged_prompt(1), {"max_new_tokens": 23, "eos_id": (-1, -1)}),
        (ragged_prompt(4), {"max_new_tokens": 3, "eos_id": (5, 5)}),  # less room than guesses
    ):
        knobs = knobs | {"sampling": GREEDY}
        plain = generate(given.target, NoDraft(), prompt, KEY, **knobs)
        ours = generate(given.target, drafter, prompt, KEY, accept=method.accept, **knobs)
        for name in ("tokens_BS", "lengths_B"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))
        if len(prompt.lengths_B) > 1:
            queued = generate_from_queue(given.target, drafter, prompt, KEY, rows=3, accept=method.accept, **knobs)
            for name in ("tokens_BS", "lengths_B", "rounds_B", "accepted_BN", "judged_BN"):
                np.testing.assert_array_equal(getattr(queued, name), getattr(ours, name), err_msg=name)
        accepted += ours.accepted_BN.sum()
    assert accepted > 0


@pytest.mark.parametrize("name", NAMES)
def test_sampling_through_a_method_compiles_once(given, name):
    before = None
    for seed in (0, 1, 2):
        method, prompt = METHODS[name], ragged_prompt(4)
        knobs = {"max_new_tokens": 9 + seed, "sampling": Sampling(0.7), "accept": method.accept, "eos_id": seed}
        made = generate(given.target, method.make(given), prompt, jax.random.key(seed), **knobs)
        assert (made.lengths_B > prompt.lengths_B).all()
        assert before in (None, engine._decode._cache_size())
        before = engine._decode._cache_size()


def test_they_say_what_they_cannot_do_without(given):
    ordinary = Given(target=given.target, drafts={"d": given.target})
    with pytest.raises(UserError, match=r"the method tli needs a draft with a tokenizer of its own \(--draft PATH\)"):
        METHODS["tli"].make(ordinary)
    assert METHODS["vanilla"].lacks(given) == "needs a draft model (--draft PATH)"
    apart = Words(((1, 0),) * 11, ((-1,),) * 3).foreign(given.foreign["d"].model)
    nothing = Given(target=given.target, foreign={"d": apart})
    with pytest.raises(UserError, match="the method tli: no token of the target's is the draft's too.* try slem"):
        METHODS["tli"].make(nothing)
    assert METHODS["slem"].set(draft_length="3").make(nothing).num_nodes == 3
    with pytest.raises(UserError, match="draft_length is 0; it must be at least 1"):
        METHODS["slem"].set(draft_length=0).make(given)


def test_each_further_draft_is_named_beside_the_method(given):
    two = Given(target=given.target, foreign={"small": given.foreign["d"], "large": given.foreign["d"]})
    entered, skipped = entries([METHODS[name] for name in ("vanilla", "tli")], two)
    assert list(entered) == ["tli", "tli@large"] and list(skipped) == ["vanilla"]
    assert list(entered["tli@large"][1].foreign) == ["large"]
