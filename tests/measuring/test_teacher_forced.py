"""Log-probabilities of given texts are those of each text alone, whatever stands beside it in the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.measuring.teacher_forced import given_logprobs
from tests import tiny_pair

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
