"""The decoder's data: what other families will ask of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.models import CausalLM
from adaspec_jax.models.decoder import Decoder
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.rotary import rotary_angles, rotate

GROUPED = DecoderConfig(
    model_type="llama",
    vocab_size=53,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    norm="rms",
    norm_eps=1e-6,
    mlp="gated",
    activation="silu",
    rotary_dim=8,
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
)


def test_interleaved_rotation_is_half_rotation_of_reordered_features():
    config = dataclasses.replace(GROUPED, rotary_dim=6)
    heads = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    positions_BT = jnp.arange(10, dtype=jnp.int32).reshape(2, 5)
    rotation = rotary_angles(positions_BT, size=config.rotary_dim, theta=config.rope_theta)
    order = np.array([0, 2, 4, 1, 3, 5, 6, 7])
    halves = rotate(heads[..., order], rotation, interleaved=False)
    np.testing.assert_allclose(rotate(heads, rotation, interleaved=True)[..., order], halves, atol=1e-6)


def test_rotation_at_position_zero_is_the_identity_and_features_past_rotary_dim_pass():
    config = dataclasses.replace(GROUPED, rotary_dim=4)
    heads = jax.random.normal(jax.random.key(0), (1, 2, 4, 8))
    rotation = rotary_angles(jnp.array([[0, 3]]), size=config.rotary_dim, theta=config.rope_theta)
    turned = rotate(heads, rotation, interleaved=False)
    np.testing.assert_array_equal(turned[:, 0], heads[:, 0])
    np.testing.assert_array_equal(turned[..., 4:], heads[..., 4:])
    assert np.abs(turned[:, 1, :, :4] - heads[:, 1, :, :4]).max() > 0.1


def test_a_shared_norm_has_no_second_norm_and_a_head_bias_is_added():
    config = dataclasses.replace(GROUPED, parallel_residual=True, shared_norm=True, head_bias=True)
    params = Decoder(config).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert "mlp_norm" not in params["layers_0"]
    model = CausalLM(params, config)
    logits = model(jnp.zeros((1, 2), jnp.int32))[0]
    params["head"]["bias"] = jnp.arange(53.0)
    shifted = CausalLM(params, config)(jnp.zeros((1, 2), jnp.int32))[0]
    np.testing.assert_allclose(shifted - logits, np.broadcast_to(np.arange(53.0), (1, 2, 53)), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "gelo"}, 'unknown activation "gelo"; did you mean "gelu"'),
        ({"num_tokens": 54}, "num_tokens 54"),
        ({"num_kv_heads": 3}, "num_kv_heads 3"),
        ({"rotary_dim": 3}, "rotary size 3"),
        ({"rotary_dim": 10}, "rotary size 10"),
        ({"head_bias": True, "tie_embeddings": True}, "a tied head has no bias"),
    ],
)
def test_an_impossible_config_is_a_user_error(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(GROUPED, **changes)
