"""What a drafter carries from one request to the next: fewer target calls for the same text, in the same program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate, generate_and_learn, memory, with_memory
from adaspec_jax.decoding.drafters.text.recycling import TokenRecycling
from adaspec_jax.decoding.drafters.text.suffixes import SuffixPath
from adaspec_jax.methods import METHODS, Given
from tests.decoding.bag_model import BagModel
from tests.decoding.recording import prompts, tiny_llama
from tests.running import slow

TARGET = tiny_llama()
KNOBS = {"max_new_tokens": 24, "sampling": Sampling(0.0), "eos_id": (2, 7)}
SMALLER = {
    "token_recycling": {},
    "suffix": {"length": 8, "depth": 16, "places": 16, "corpus_longest": 8, "remembered": 128},
    "swift": {"length": 4, "siblings": 2, "window": 2, "enough": 2.0},
}


@pytest.fixture(scope="module")
def plain():
    return jax.device_get(generate(TARGET, NoDraft(), prompts(3), jax.random.key(0), **KNOBS))


def test_these_and_no_others_learn_across_requests():
    given = Given(target=TARGET, datastore=())
    drafters = {name: m.make(given) for name, m in METHODS.items() if not m.lacks(given) and name != "n_grammys"}
    assert {name for name, drafter in drafters.items() if memory.remembers(drafter)} == set(SMALLER)


@pytest.mark.parametrize("name", ["token_recycling", "suffix", slow("swift")])
def test_a_memory_changes_the_calls_and_never_the_text(name, plain):
    """The same prompts again: whoever copies what it has seen needs fewer calls, and the first time is the cold one."""
    cold = METHODS[name].set(**SMALLER[name]).make(Given(target=TARGET))
    alone = jax.device_get(generate(TARGET, cold, prompts(3), jax.random.key(0), **KNOBS))
    drafter, rounds, programs = cold, [], None
    for _ in range(3):
        made, drafter = generate_and_learn(TARGET, drafter, prompts(3), jax.random.key(0), **KNOBS)
        np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(made.lengths_B, plain.lengths_B)
        programs = programs or memory._decode_and_learn._cache_size()
        rounds.append(np.asarray(made.rounds_B))
    np.testing.assert_array_equal(rounds[0], alone.rounds_B)
    assert memory._decode_and_learn._cache_size() == programs
    assert name == "swift" or rounds[1].sum() < rounds[0].sum()


def test_a_request_that_has_ended_teaches_nothing_more():
    """Whatever its neighbours in the batch still write: alone it leaves the same behind."""
    target = BagModel.random(0, vocab=11, scale=2.0)
    drafter, knobs = TokenRecycling(11, ((2,), (1, 1))), KNOBS | {"eos_id": 8}
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    left = []
    for chosen in ([0], [1], [0, 1]):
        prompt = Context(rows[chosen], np.full(len(chosen), 3))
        made, after = generate_and_learn(target, drafter, prompt, jax.random.key(0), **knobs)
        left.append(np.asarray(after.memory))
    assert len(set(np.asarray(made.lengths_B).tolist())) == 2  # one ends before the other
    taught = left[1].any(axis=1)  # the later row counts
    np.testing.assert_array_equal(left[2], np.where(taught[:, None], left[1], left[0]))


def test_answers_are_kept_in_the_order_of_rows_and_the_oldest_tokens_go():
    drafter = with_memory(SuffixPath(remembered=8))
    context = Context(jnp.asarray([[9, 9, 1, 2, 3, 0], [9, 4, 5, 6, 0, 0]]), jnp.asarray([5, 3]))
    learnt = drafter.remember((), context, jnp.asarray([2, 1]))
    np.testing.assert_array_equal(learnt, [-1, 1, 2, 3, -1, 4, 5, -1])
    drafter = with_memory(SuffixPath(remembered=3))
    np.testing.assert_array_equal(drafter.remember((), context, jnp.asarray([2, 1])), [4, 5, -1])


def test_what_learns_nothing_is_refused_by_its_name():
    with pytest.raises(ValueError, match="NoDraft does not learn across requests"):
        generate_and_learn(TARGET, NoDraft(), prompts(1), jax.random.key(0), **KNOBS)
