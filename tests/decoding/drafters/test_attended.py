"""Keys chosen by attention: the layers' own weights, plain Python's choice, the target's text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.decoding.drafters.target.sparse import AttendedDrafter
from tests.decoding.recording import prompts, tiny_llama

TARGET = tiny_llama(num_hidden_layers=2)
BUDGET, RECENT, LOOKING, POOL = 8, 4, 3, 3


def read(weight_GS, held, *, slip=0):
    """Each head's slots, the most attended first: lists and loops."""
    found = []
    for weights in weight_GS.tolist():
        pooled = [sum(weights[max(at - 1, 0) : at + 2 + slip]) for at in range(held - RECENT)]
        found.append(sorted(range(len(pooled)), key=lambda at: -pooled[at])[: BUDGET - RECENT])
    return found


@pytest.fixture(scope="module")
def drafter():
    return AttendedDrafter(TARGET, 3, BUDGET, RECENT, LOOKING, POOL)


@pytest.fixture(scope="module")
def looked_at():
    """A prompt, its taps (what enters each layer, and leaves its attention) and its cache."""
    prompt = prompts(1, longest=16)
    ran = TARGET.run(prompt.tokens_BS, TARGET.init_cache(1, 24), taps=(0, 0.5, 1.5))
    entered = [TARGET.run(prompt.tokens_BS, last=0).hidden, ran.taps[0]]
    return prompt, entered, ran.taps[1:], ran.cache


@pytest.mark.parametrize("layer", [0, 1])
def test_the_weights_are_those_by_which_values_are_mixed(looked_at, layer):
    _, entered, left, cache = looked_at
    for at in (0, 7, 15):
        here = slice(at, at + 1)
        weight_BGS = TARGET.attention_to_keys(layer, entered[layer][:, here], cache, jnp.array([[at]]))
        mixed = jnp.einsum("bgs,bgsk->bgk", weight_BGS, cache.values[layer]).reshape(1, -1)
        added = mixed @ TARGET.params[f"layers_{layer}"]["attention"]["out"]["kernel"]
        np.testing.assert_allclose(added, (left[layer] - entered[layer])[:, at], atol=1e-5)


def test_each_head_chooses_what_the_last_tokens_attend_to(drafter, looked_at):
    prompt, entered, _, cache = looked_at
    context = Context(jnp.asarray(prompt.tokens_BS), jnp.array([16]), hidden=(entered[1],), target_cache=cache)
    state = drafter.init(context, 24)
    position_BT = jnp.arange(13, 16)[None]
    for layer in (0, 1):
        weight_BGS = TARGET.attention_to_keys(layer, entered[layer][:, 13:], cache, position_BT)
        assert state.slots_BLGX[0, layer].tolist() == read(np.asarray(weight_BGS[0]), 15)
        assert state.slots_BLGX[0, layer].tolist() != read(np.asarray(weight_BGS[0]), 15, slip=1)
    assert state.count_B.tolist() == [BUDGET - RECENT]


def test_greedy_text_is_plain_decodings(drafter):
    prompt, knobs = prompts(4, longest=16), {"max_new_tokens": 16, "sampling": Sampling(0.0)}
    plain = generate(TARGET, NoDraft(), prompt, jax.random.key(0), **knobs)
    ours = generate(TARGET, drafter, prompt, jax.random.key(0), **knobs)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert 0 < ours.accepted_BN.sum() < ours.judged_BN.sum()


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="recent must be smaller than the budget"):
        AttendedDrafter(TARGET, 3, 8, 8)
