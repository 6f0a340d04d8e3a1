"""Sums along texts are those of the laws there: held against `tokenwise`, and against laws worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.diagnosis.laws import TEMPERED, law_sums
from adaspec_jax.measuring.tokenwise import tokenwise
from tests import tiny_pair

ROWS, PROMPTS = [[5, 9, 200, 3, 7, 11, 0], [17, 30, 30], [8, 8, 0]], [3, 1, 2]


def _sums(temperature, guesses="drawn"):
    hf = {"vocab_size": tiny_pair.TOKENS}
    pair = [models.build(kind | hf, jax.random.key(i)) for i, kind in enumerate([tiny_pair.LLAMA, tiny_pair.GPT_NEOX])]
    tokens_BS = np.zeros((len(ROWS), 9), np.int32)
    for row, tokens in zip(tokens_BS, ROWS, strict=True):
        row[: len(tokens)] = tokens
    texts = jnp.asarray(tokens_BS), jnp.asarray(PROMPTS), jnp.asarray([len(tokens) for tokens in ROWS])
    found = law_sums(*pair, *texts, jnp.asarray([0]), temperature=temperature, guesses=guesses)
    return pair, texts, jax.device_get(found)


def test_greedy_sums_are_those_of_tokenwise():
    pair, texts, sums = _sums(0.0)
    found = jax.device_get(tokenwise(*pair, *texts, choices=1))
    assert sums["tokens"].tolist() == [4, 2, 1] and sums["ended"].tolist() == [1, 0, 1]
    same = found.counted_BS & (found.target_top_BSC[..., 0] == found.draft_top_BSC[..., 0])
    np.testing.assert_allclose(sums["accepted"], same.sum(1))
    for name, leaf in (("overlap", found.overlap_BS), ("kl", found.kl_BS), ("entropy", found.target_entropy_BS)):
        np.testing.assert_allclose(sums[name], leaf.sum(1), rtol=1e-4, err_msg=name)
    nats = -np.log(np.where(found.counted_BS, found.q_BS, 1))
    np.testing.assert_allclose(sums["nats_draft"], nats.sum(1), rtol=1e-4)
    last = found.p_BS[0, 6] + 0 * found.p_BS[0, 0]
    assert sums["end_target"][0] == pytest.approx(last) and sums["end_target"][1] == 0


@pytest.mark.parametrize("guesses", ["drawn", "likeliest"])
def test_sampled_sums_are_those_of_the_laws_at_that_temperature(guesses):
    (target, draft), _, sums = _sums(1.7, guesses)
    logits = [np.asarray(model(jnp.asarray([ROWS[1]]))[0][0], np.float64)[:2] for model in (target, draft)]
    p_SV, q_SV = (np.exp(l / 1.7) / np.exp(l / 1.7).sum(1, keepdims=True) for l in logits)  # noqa: E741
    drawn = np.minimum(p_SV, q_SV).sum()
    likeliest = p_SV[np.arange(2), q_SV.argmax(1)].sum()
    assert sums["drawn"][1] == pytest.approx(drawn, rel=1e-4)
    assert sums["accepted"][1] == pytest.approx(drawn if guesses == "drawn" else likeliest, rel=1e-4)
    assert sums["likeliest"][1] == pytest.approx(p_SV.max(1).sum(), rel=1e-4)
    tempered = [name for name in sums if name.startswith("tempered")]
    assert len(tempered) == (len(TEMPERED) if guesses == "drawn" else 0)
    if tempered:
        cold_SV = np.exp(logits[1] / 1.7 / 0.4)
        expected = np.minimum(p_SV, cold_SV / cold_SV.sum(1, keepdims=True)).sum()
        assert sums["tempered 0.4"][1] == pytest.approx(expected, rel=1e-4)
