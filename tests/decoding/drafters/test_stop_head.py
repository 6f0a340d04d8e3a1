"""A chain that a trained stop head ends: exact, plain decoding's text, as long as the head says along the text."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, NoDraft, Sampling, generate, rejection_sample
from adaspec_jax.decoding.stopping import Survival
from tests.decoding import enumeration
from tests.decoding.drafters.test_masked import NEW, SMALL, VOCAB, decode, pair
from tests.decoding.recording import Asked, play, tiny_llama
from tests.decoding.test_engine import ragged_prompt


def a_head(size, seed=3):
    """One whose word differs much from place to place."""
    head = models.StopHead.new(jax.random.key(seed), size, depth=2)
    return dataclasses.replace(head, params=jax.tree.map(lambda x: 2.0 * x, head.params))


def test_the_output_follows_the_targets_law_exactly():
    target, draft = tiny_llama(**SMALL), tiny_llama(1, **SMALL)
    drafter = ChainDrafter(draft, 2, Survival(a_head(16), 0.4, 1, 2))
    asked = Asked(target, longest=8)
    with mock.patch.object(enumeration, "next_logits", lambda target, tokens: asked.logits(tokens)):
        assert enumeration.largest_error(target, drafter, rejection_sample) < 1e-5


def test_rounds_end_where_the_head_says_so_of_what_the_draft_made_of_its_own_guesses():
    target, draft = pair()
    head, asked, lengths = a_head(32), Asked(draft), set()
    hidden = jax.jit(lambda tokens_BT: draft.features(tokens_BT)[0][0])
    drafter = ChainDrafter(draft, 5, Survival(head, 0.6, 1, 5))
    for row in play(target, drafter, ragged_prompt(4, vocab=VOCAB), max_new_tokens=NEW):
        for length, guesses in row.rounds:
            text, survival, expected = list(row.text[:length]), 1.0, []
            for n in range(5):
                if n:
                    padded = np.zeros((1, 64), int)
                    padded[0, : len(text)] = text
                    read = hidden(padded)[len(text) - 1]
                    survival *= float(head(jnp.zeros((1, VOCAB)), read[None])[0])
                if n >= 1 and 1 - survival > 0.6:
                    break
                text.append(asked.choice(text))
                expected.append(tuple(text[length:]))
            assert guesses == expected, length
            lengths.add(len(expected))
    assert len(lengths) > 2


def test_greedy_text_is_plain_decodings():
    target, draft = pair()
    drafter = ChainDrafter(draft, 6, Survival(a_head(32), 0.6, 2, 6), widths=(0, 3))
    for batch in (1, 8):
        prompt = ragged_prompt(batch, vocab=VOCAB)
        plain, ours = (decode(target, each, prompt) for each in (NoDraft(), drafter))
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draft)
    how = {"max_new_tokens": 4, "sampling": Sampling(0.0), "eos_id": (7, 2)}
    generate(target, dataclasses.replace(drafter, model=narrow), prompt, jax.random.key(0), **how)
