"""Log-probabilities of given texts are those of each alone; what a head says along a text is what it guesses there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.measuring.teacher_forced import AlongText, given_logprobs, teacher_forced
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.training import Batch
from tests import tiny_pair
from tests.decoding.drafters.heads import VOCAB, target, trained_on, untrained
from tests.running import slow

ROWS = [[5, 9, 200, 3, 7, 11, 42], [17, 30, 30], [8]]


@pytest.mark.parametrize("width", [7, 12])
def test_logprobs_are_those_of_each_text_alone(width):
    model = models.build(tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS}, jax.random.key(0))
    tokens_BS = np.zeros((len(ROWS), width), np.int32)
    for row, tokens in zip(tokens_BS, ROWS, strict=True):
        row[: len(tokens)] = tokens
    found_BS = jax.device_get(given_logprobs(model, jnp.asarray(tokens_BS)))
    assert found_BS.dtype == np.float32 and found_BS.shape == tokens_BS.shape
    for found_S, tokens in zip(found_BS, ROWS, strict=True):
        logits_SV = np.asarray(model(jnp.asarray([tokens]))[0][0], np.float64)
        law_SV = np.exp(logits_SV) / np.exp(logits_SV).sum(1, keepdims=True)
        expected = [0.0, *(np.log(law_SV[at - 1, tokens[at]]) for at in range(1, len(tokens)))]
        np.testing.assert_allclose(found_S[: len(tokens)], expected, atol=1e-5)


@pytest.mark.parametrize("kind", [slow("eagle"), "eagle3", "kangaroo", slow("hydra_plus")])
def test_what_a_head_says_along_a_text_is_what_it_guesses_there(kind):
    """Token by token: rounds of one guess stop at the same places, and keep the same guesses."""
    begun = np.random.default_rng(7).integers(0, VOCAB, (16, 2))
    prompt, how = Context(begun, np.full(16, 2)), {"max_new_tokens": 22, "sampling": Sampling(0.0), "eos_id": -1}
    plain = jax.device_get(generate(target(), NoDraft(), prompt, jax.random.key(0), **how))
    text_BS, end = plain.tokens_BS[:, :24], 24
    head = trained_on(kind, Batch(jnp.asarray(text_BS), jnp.ones((16, 24), bool)), 100)
    right_BS = np.asarray(AlongText(head, target())(jnp.asarray(text_BS))[0].argmax(-1))[:, :-1] == text_BS[:, 1:]
    kept_B, rounds_B = np.zeros(16, int), np.zeros(16, int)
    for row in range(16):
        at = 2
        while at < end:
            right = right_BS[row, at - 1]
            kept_B[row], rounds_B[row], at = kept_B[row] + right, rounds_B[row] + 1, at + 1 + right
    made = jax.device_get(generate(target(), chain_of(head, target(), 1), prompt, jax.random.key(0), **how))
    np.testing.assert_array_equal(made.accepted_BN.sum(1), kept_B)
    np.testing.assert_array_equal(made.rounds_B, rounds_B)
    assert 0.2 < kept_B.sum() / rounds_B.sum() < 0.95  # both are seen
    lengths_B = jnp.full((16,), 24)
    agreed_B = teacher_forced(target(), AlongText(head, target()), jnp.asarray(text_BS), lengths_B * 0 + 2, lengths_B)[
        1
    ]
    np.testing.assert_array_equal(agreed_B, right_BS[:, 1:].sum(1))


def test_the_nearest_guess_alone_is_that_of_all():
    """Slots after every place of a text are read in one pass, and the nearest of each place do not see the others."""
    head, tokens_BT = untrained("pass", target(), spread=0.1), jnp.asarray([[3, 8, 1, 4, 19], [7, 7, 2, 0, 5]])
    every = head.guessed(target(), tokens_BT, jnp.zeros((2, 5, 16)))
    (one,) = head.config.nearest(head).guessed(target(), tokens_BT, jnp.zeros((2, 5, 16)))
    assert len(every) == 3
    np.testing.assert_allclose(one, every[0], atol=1e-5)
    said_BTV = AlongText(head, target())(tokens_BT)[0]
    np.testing.assert_allclose(said_BTV[:, 1:], target().unembed(every[0])[:, :-1], atol=1e-4)
