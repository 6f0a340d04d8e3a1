"""Attention in blocks of queries is attention under one mask, in value and gradient; kernels are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX
from adaspec_jax.errors import UserError
from adaspec_jax.models import attention
from adaspec_jax.models.attention import cached_attention, causal_attention
from tests.running import slow


@pytest.mark.parametrize("length, kv_heads", [(64, 4), (128, 4), (200, 2), (384, 1)])
def test_blocks_are_the_whole_square(length, kv_heads):
    query, key, value = (
        jax.random.normal(jax.random.key(n), (2, length, heads, 8)) for n, heads in enumerate((4, kv_heads, kv_heads))
    )
    mask = jnp.tril(jnp.ones((length, length), bool))[None, None]

    def whole(*args):
        return jax.nn.dot_product_attention(*args, mask=mask)

    np.testing.assert_allclose(
        attention.causal_attention(query, key, value), whole(query, key, value), rtol=1e-5, atol=1e-6
    )
    gradients = [
        jax.grad(lambda *args, f=f: (f(*args) ** 2).sum(), (0, 1, 2))(query, key, value)
        for f in (attention.causal_attention, whole)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)


def test_long_rows_hold_about_half_the_scores():
    shape = jax.ShapeDtypeStruct((1, 2048, 8, 32), jnp.float32)

    def temporary(function):
        gradient = jax.grad(lambda *args: (function(*args) ** 2).sum(), (0, 1, 2))
        return jax.jit(gradient).lower(shape, shape, shape).compile().memory_analysis().temp_size_in_bytes

    def whole(*args):
        return jax.nn.dot_product_attention(*args, is_causal=True)

    assert temporary(attention.causal_attention) < 0.65 * temporary(whole)


def test_a_kernel_that_is_not_here_is_refused_in_words(monkeypatch):
    model = models.build(
        GPTNeoX(vocab_size=32, hidden_size=48, num_attention_heads=4, rotary_pct=0.5).hf_config(), jax.random.key(0)
    )
    assert model.with_attention("xla", "float32").config.attention == "xla"
    with pytest.raises(UserError, match="needs an NVIDIA GPU, and this is cpu"):
        model.with_attention("cudnn", "bfloat16")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="computes in bfloat16"):
        model.with_attention("cudnn", "float32")
    with pytest.raises(UserError, match="a multiple of 8, not 12"):
        model.with_attention("cudnn", "bfloat16")


@pytest.mark.parametrize("length, kv_heads", [(200, 2), slow(64, 4)])  # several blocks of queries, and one
def test_segments_are_attention_under_a_mask_of_blocks(length, kv_heads):
    query, key, value = (
        jax.random.normal(jax.random.key(n), (2, length, heads, 8)) for n, heads in enumerate((4, kv_heads, kv_heads))
    )
    ends = np.array([[5, 70, 71, 150], [30, 64, 128, length]])[:, :, None]
    segments_BT = (np.arange(length) >= ends).sum(1).astype(np.int32)
    mask = np.tril(segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]

    def whole(*args):
        return jax.nn.dot_product_attention(*args, mask=mask)

    def by_segments(*args):
        return attention.causal_attention(*args, segments_BT=segments_BT)

    ours, theirs = (jax.jit(f)(query, key, value) for f in (by_segments, whole))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = [
        jax.jit(jax.grad(lambda *args, f=f: (f(*args) ** 2).sum(), (0, 1, 2)))(query, key, value)
        for f in (by_segments, whole)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)
    with pytest.raises(ValueError, match='"cudnn" does not keep segments apart'):
        attention.causal_attention(query, key, value, kernel="cudnn", segments_BT=segments_BT)


def test_segments_need_no_mask_of_whole_rows_in_memory():
    heads = jax.ShapeDtypeStruct((1, 1024, 8, 32), jnp.float32)

    def temporary(*segments):
        def loss(query, key, value, *segments):
            how = {"segments_BT": segments[0]} if segments else {}
            return (attention.causal_attention(query, key, value, **how) ** 2).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(heads, heads, heads, *segments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    segments_BT = jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    assert temporary(segments_BT) - temporary() < 1024 * 1024 / 4


def test_the_fused_kernel_is_told_the_scale(monkeypatch):
    """Its arguments, for there is no such GPU here; by XLA's own code they are our attention."""
    theirs = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *x, **k: theirs(*x, **k | {"implementation": "xla"}))
    query, key, value = (jax.random.normal(jax.random.key(i), (2, 9, 4, 8)) for i in range(3))
    for scale in (None, 0.8):
        ours = causal_attention(query, key, value, scale=scale)
        np.testing.assert_allclose(causal_attention(query, key, value, kernel="cudnn", scale=scale), ours, atol=1e-5)


def test_a_scale_that_bfloat16_has_not_is_not_rounded():
    query, key, value = (jax.random.normal(jax.random.key(i), (2, 40, 2, 8), jnp.bfloat16) for i in range(3))
    wide = [x.astype(jnp.float32) for x in (query, key, value)]
    scale = 144**-0.5 * 8  # bfloat16 rounds it by 0.2 %
    mask = jnp.tril(jnp.ones((1, 40, 40), bool))
    seen = (jnp.moveaxis(key, 1, 2), jnp.moveaxis(value, 1, 2))
    expected = np.asarray(causal_attention(*wide, scale=scale))
    found = [causal_attention(query, key, value, scale=scale), cached_attention(query, *seen, mask, scale=scale)]
    rounded = causal_attention(*wide, scale=float(jnp.bfloat16(scale)))
    for ours in found:
        error = np.abs(np.asarray(ours, np.float32) - expected).mean()
        assert error < 0.006 and error < 2 * np.abs(np.asarray(rounded) - expected).mean() + 0.005
