"""A stream ends with what `generate` returns, grows round by round, and costs no more rounds than were taken."""

import itertools

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, TreeDrafter, generate, stream, streaming
from tests.decoding.bag_model import BagModel

TARGET = BagModel.random(0)
DRAFT = BagModel(TARGET.table_VV + 0.5 * BagModel.random(1).table_VV)
PROMPT = Context(np.array([[1, 2, 0, 0], [2, 1, 1, 2], [1, 0, 0, 0]]), np.array([2, 4, 1]))
DRAFTERS = {"plain": NoDraft(), "chain": ChainDrafter(DRAFT, length=3), "tree": TreeDrafter(DRAFT, branching=(2, 1))}


def knobs(temperature, eos_id=3):
    return {"max_new_tokens": 20, "sampling": Sampling(temperature), "eos_id": eos_id}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", DRAFTERS)
def test_the_last_of_a_stream_is_what_generate_returns(name, temperature):
    key = jax.random.key(5)
    whole = generate(TARGET, DRAFTERS[name], PROMPT, key, **knobs(temperature))
    made = list(stream(TARGET, DRAFTERS[name], PROMPT, key, **knobs(temperature)))
    assert len(made) == int(whole.rounds_B.max())
    for ours, theirs in zip(jax.tree.leaves(made[-1]), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for before, after in itertools.pairwise(made):
        for row in range(3):
            length = int(before.lengths_B[row])
            assert length <= int(after.lengths_B[row])
            np.testing.assert_array_equal(before.tokens_BS[row, :length], after.tokens_BS[row, :length])


def test_rounds_are_run_when_they_are_asked_for_and_compiled_once(monkeypatch):
    calls = []
    one_round = streaming.round_of
    monkeypatch.setattr(streaming, "round_of", lambda *a, **k: calls.append(1) or one_round(*a, **k))
    drafter = DRAFTERS["chain"]
    taken = list(itertools.islice(stream(TARGET, drafter, PROMPT, jax.random.key(0), **knobs(0.0, -1)), 3))
    assert len(taken) == len(calls) == 3
    compiled = one_round._cache_size()
    list(stream(TARGET, drafter, PROMPT, jax.random.key(1), **knobs(0.0, -1)))
    assert one_round._cache_size() == compiled


def test_mistakes_are_those_of_generate():
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        next(stream(TARGET, NoDraft(), PROMPT, jax.random.key(0), **knobs(0.0) | {"max_new_tokens": 0}))
