"""Guesses at mask tokens: exact, plain decoding's text, and those of masks after the text, whatever was refused."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    Dialogue,
    NoDraft,
    Sampling,
    generate,
    generate_from_queue,
    pytree,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.models.cascade import Cascade
from adaspec_jax.decoding.drafters.models.masked import MaskDrafter
from tests.decoding import enumeration
from tests.decoding.recording import Asked, play, tiny_llama
from tests.decoding.test_dialogue import padded, texts
from tests.decoding.test_engine import ragged_prompt
from tests.running import slow
from tests.training.test_revealing import read_as_block

VOCAB, MASK, NEW = 23, 22, 24
GREEDY, KEY = Sampling(temperature=0.0), jax.random.key(0)
SMALL = {"vocab_size": 3, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "initializer_range": 0.3}
FAMILIES = {"llama": {}, "windows": {"model_type": "mistral", "sliding_window": 6, "num_key_value_heads": 2}}


def pair(family="llama"):
    """A target, and a draft that is often right of the first guesses: the target, a little changed."""
    target = tiny_llama(num_hidden_layers=2, **FAMILIES[family])
    noise = tiny_llama(7, num_hidden_layers=2, **FAMILIES[family])
    mixed = jax.tree.map(lambda a, b: a + 0.05 * b, target.params, noise.params)
    return target, dataclasses.replace(target, params=mixed)


def decode(target, drafter, prompt, how=generate, **knobs):
    knobs = {"max_new_tokens": NEW, "sampling": GREEDY, "eos_id": (7, 2)} | knobs
    return jax.device_get(how(target, drafter, prompt, KEY, **knobs))


def error(drafter, model, **how):
    asked = Asked(model, longest=8)
    with mock.patch.object(enumeration, "next_logits", lambda target, tokens: asked.logits(tokens)):
        return enumeration.largest_error(model, drafter, rejection_sample, **how)


CASES = {
    "two guesses": (2, {}),
    "two rounds": (1, {"rounds": 2, "horizon": 4}),
    "ends of text": (2, {"eos": 0}),
    "sampled otherwise": (2, {"sampling": Sampling(1.3, top_p=0.8)}),
}


@pytest.mark.parametrize("case", [slow(case) if case in ("two rounds", "ends of text") else case for case in CASES])
def test_the_output_follows_the_targets_law_exactly(case):
    length, how = CASES[case]
    assert error(MaskDrafter(tiny_llama(1, **SMALL), 2, length), tiny_llama(**SMALL), **how) < 1e-5


@pytree("mask", "length")
class OfAnother(MaskDrafter):
    """States the laws of the masks before its own."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, probs_BNV=jnp.roll(proposal.probs_BNV, 1, axis=1)), state


def test_another_law_than_that_of_the_draw_is_found():
    assert error(OfAnother(tiny_llama(1, **SMALL), 2, 2), tiny_llama(**SMALL)) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_guess_is_that_of_masks_after_the_text_read_anew(family):
    """In every round, whatever was refused before: no mask stays in the cache."""
    target, draft = pair(family)
    asked, taken, refused = Asked(draft), 0, 0
    for row in play(target, MaskDrafter(draft, MASK, 3), ragged_prompt(4, vocab=VOCAB), max_new_tokens=NEW):
        for length, guesses in row.rounds:
            expected = [asked.choice((*row.text[:length], *[MASK] * depth)) for depth in range(3)]
            assert guesses[-1] == tuple(expected), length
            right = np.cumprod(np.array(expected) == np.array(row.text[length : length + 3] + (-1,) * 3)[:3])
            taken, refused = taken + int(right.sum()), refused + (not right.all())
    assert taken > 5 and refused > 5


@pytest.mark.parametrize("family", ["llama", slow("windows")])
def test_guesses_of_a_block_are_those_of_masks_that_see_each_other_whatever_is_asked_of_it(family):
    """Its masks are as many as it was trained with, and the text sees none of them."""
    target, draft = pair(family)
    taken = refused = 0
    for row in play(target, MaskDrafter(draft, MASK, 2, 4), ragged_prompt(4, vocab=VOCAB), max_new_tokens=NEW):
        for length, guesses in row.rounds:
            hidden = read_as_block(draft, [*row.text[:length], *[MASK] * 3], length, room=48)
            expected = np.asarray(draft.unembed(hidden)).argmax(axis=-1)[length - 1 : length + 1]
            assert guesses[-1] == tuple(map(int, expected)), length
            right = row.text[length : length + 1] == (expected[0],)
            taken, refused = taken + right, refused + (not right)
    assert taken > 5 and refused > 5


def test_a_block_is_exact_and_makes_no_more_guesses_than_it_has():
    assert error(MaskDrafter(tiny_llama(1, **SMALL), 2, 2, 3), tiny_llama(**SMALL)) < 1e-5
    target, draft = pair()
    prompt = ragged_prompt(8, vocab=VOCAB)
    plain, ours = (decode(target, each, prompt) for each in (NoDraft(), MaskDrafter(draft, MASK, 3, 3)))
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert MaskDrafter(draft, MASK, 4, 3) == MaskDrafter(draft, MASK, 3, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_plain_decodings(family):
    target, draft = pair(family)
    for batch, budget, length in ((8, NEW, 4), (8, 3, 4), (1, NEW, 1), (1, NEW, 6)):
        prompt = ragged_prompt(batch, vocab=VOCAB)
        drafters = NoDraft(), MaskDrafter(draft, MASK, length)
        plain, ours = (decode(target, each, prompt, max_new_tokens=budget) for each in drafters)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
        assert batch == 1 or budget < NEW or ours.rounds_B.sum() < plain.rounds_B.sum()


def test_a_queue_gives_every_prompt_what_a_batch_gives_it():
    target, draft = pair()
    prompt, drafter = ragged_prompt(8, vocab=VOCAB), MaskDrafter(draft, MASK, 3)
    batched = decode(target, drafter, prompt)
    queued = decode(target, drafter, prompt, how=generate_from_queue, rows=3, refill=1)
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(queued, field), getattr(batched, field), err_msg=field)


@pytest.mark.parametrize("sampling", [Sampling(0.7, shared_noise=True), Sampling(0.0, repetition_penalty=1.5)])
def test_shared_noise_and_penalties_give_plain_decodings_text(sampling):
    target, draft = pair()
    prompt = ragged_prompt(8, vocab=VOCAB)
    drafters = NoDraft(), MaskDrafter(draft, MASK, 3)
    plain, ours = (decode(target, each, prompt, sampling=sampling) for each in drafters)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


def test_a_turn_goes_on_from_its_cache_and_inside_another_round_it_reads_what_it_lacks():
    target, draft = pair()
    drafter, how = MaskDrafter(draft, MASK, 3), {"max_new_tokens": 12, "sampling": GREEDY, "eos_id": (7, 2)}
    talk, rows = Dialogue(target, drafter, **how), [[3, 1, 4], [1, 5]]
    for said in ([6, 9], [8]):
        made = talk.turn(padded(rows), KEY)
        whole = decode(target, drafter, padded(rows), max_new_tokens=12)
        assert texts(jax.device_get(made)) == texts(whole)
        np.testing.assert_array_equal(made.rounds_B, whole.rounds_B)
        rows = [row + said for row in texts(whole)]
    assert np.asarray(talk.read_B).max() < 10
    inner = Cascade(drafter, pair()[1], 4, rejection_sample)
    prompt = ragged_prompt(4, vocab=VOCAB)
    np.testing.assert_array_equal(decode(target, inner, prompt).tokens_BS, decode(target, NoDraft(), prompt).tokens_BS)


def test_no_guess_at_all_is_refused():
    with pytest.raises(ValueError, match="length is 0; it must be at least 1"):
        MaskDrafter(pair()[1], MASK, 0)
