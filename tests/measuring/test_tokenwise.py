"""Figures of every token are those of the two laws there, worked out anew for each text alone."""

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import models
from adaspec_jax.measuring.teacher_forced import teacher_forced
from adaspec_jax.measuring.tokenwise import tokenwise
from tests import tiny_pair

ROWS, PROMPTS, WIDTH = [[5, 9, 200, 3, 7, 11, 42], [17, 30, 30], [8, 8]], [3, 1, 2], 9


def _pair():
    hf = {"vocab_size": tiny_pair.TOKENS}
    return models.build(tiny_pair.LLAMA | hf, jax.random.key(0)), models.build(
        tiny_pair.GPT_NEOX | hf, jax.random.key(1)
    )


def _padded():
    tokens_BS = np.zeros((len(ROWS), WIDTH), np.int32)
    for row, tokens in zip(tokens_BS, ROWS, strict=True):
        row[: len(tokens)] = tokens
    return jnp.asarray(tokens_BS), jnp.asarray(PROMPTS), jnp.asarray([len(tokens) for tokens in ROWS])


def _law(model, tokens):
    logits_V = np.asarray(model(jnp.asarray([tokens]))[0][0, -1], np.float64)
    return np.exp(logits_V - logits_V.max()) / np.exp(logits_V - logits_V.max()).sum()


def test_figures_of_every_token_are_those_of_the_two_laws_there():
    target, draft = _pair()
    found = jax.device_get(tokenwise(target, draft, *_padded(), choices=3))
    for b, tokens in enumerate(ROWS):
        for s in range(WIDTH):
            if not PROMPTS[b] <= s < len(tokens):
                assert all(not np.any(leaf[b, s]) for leaf in jax.tree.leaves(found))
                continue
            p_V, q_V = _law(target, tokens[:s]), _law(draft, tokens[:s])
            expected = {
                "counted_BS": True,
                "p_BS": p_V[tokens[s]],
                "q_BS": q_V[tokens[s]],
                "kl_BS": np.sum(p_V * np.log(p_V / q_V)),
                "overlap_BS": np.minimum(p_V, q_V).sum(),
                "target_entropy_BS": -np.sum(p_V * np.log(p_V)),
                "draft_entropy_BS": -np.sum(q_V * np.log(q_V)),
                "target_top_BSC": np.argsort(-p_V)[:3],
                "target_top_p_BSC": np.sort(p_V)[::-1][:3],
                "draft_top_BSC": np.argsort(-q_V)[:3],
                "draft_top_q_BSC": np.sort(q_V)[::-1][:3],
            }
            for name, value in expected.items():
                np.testing.assert_allclose(getattr(found, name)[b, s], value, atol=1e-5, err_msg=name)


def test_they_add_up_to_the_figures_of_the_report():
    pair, rows = _pair(), _padded()
    overlap_B, agreed_B, counted_B = teacher_forced(*pair, *rows)
    found = tokenwise(*pair, *rows)
    np.testing.assert_array_equal(found.counted_BS.sum(1), counted_B)
    np.testing.assert_allclose(found.overlap_BS.sum(1), overlap_B, atol=1e-5)
    same_BS = found.counted_BS & (found.target_top_BSC[..., 0] == found.draft_top_BSC[..., 0])
    np.testing.assert_array_equal(same_BS.sum(1), agreed_B)


def test_a_token_that_a_law_leaves_out_makes_no_figure_nan():
    def masked(tokens_BT):
        return jnp.zeros((*tokens_BT.shape, 8)).at[..., 5:].set(-jnp.inf), None

    def masked_more(tokens_BT):
        return jnp.zeros((*tokens_BT.shape, 8)).at[..., 6:].set(-jnp.inf), None

    given = jnp.asarray([[1, 7, 2]]), jnp.asarray([1]), jnp.asarray([3])
    target, draft = (jax.tree_util.Partial(model) for model in (masked, masked_more))
    found = jax.device_get(tokenwise(target, draft, *given))
    np.testing.assert_allclose(found.p_BS, [[0, 0, 0.2]], atol=1e-6)
    np.testing.assert_allclose(found.kl_BS, [[0, *[np.log(6 / 5)] * 2]], atol=1e-6)
    np.testing.assert_allclose(found.overlap_BS, [[0, *[5 / 6] * 2]], atol=1e-6)


def test_one_choice_is_the_first_of_several():
    several, one = (jax.device_get(tokenwise(*_pair(), *_padded(), choices=choices)) for choices in (3, 1))
    for name in ("target_top_BSC", "target_top_p_BSC", "draft_top_BSC", "draft_top_q_BSC"):
        np.testing.assert_array_equal(getattr(one, name)[..., 0], getattr(several, name)[..., 0], err_msg=name)
