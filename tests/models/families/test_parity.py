"""Logits against transformers in float32 at full matmul precision."""

import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def largest_difference(theirs, ours, *, batch=3, length=17, seed=0):
    tokens_BT = np.random.default_rng(seed).integers(0, ours.config.vocab_size, (batch, length))
    with torch.no_grad():
        expected_BTV = theirs(torch.tensor(tokens_BT)).logits.numpy()
    logits_BTV, cache = ours(tokens_BT)
    assert cache is None and logits_BTV.dtype == jnp.float32
    assert np.abs(expected_BTV).max() > 0.1
    return np.abs(np.asarray(logits_BTV) - expected_BTV).max()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"use_parallel_residual": False},
        {"tie_word_embeddings": True},
        {"rotary_pct": 0.25},
        {"rotary_pct": 1.0, "rotary_emb_base": 500},
        {"attention_bias": False},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu", "layer_norm_eps": 1e-2},
        {"num_attention_heads": 1, "num_hidden_layers": 1},
    ],
    ids=lambda keys: ",".join(map(str, keys.items())) or "default",
)
def test_logits_equal_transformers(torch_checkpoint, keys):
    theirs, directory = torch_checkpoint(**keys)
    assert largest_difference(theirs, models.load(directory)) <= 1e-4


@pytest.mark.parametrize(
    "keys",
    [
        {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512},
        {"hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024},
    ],
    ids=["pythia-14m", "pythia-31m"],
)
def test_logits_equal_transformers_at_the_sizes_of_pythia(torch_checkpoint, keys):
    shape = {"num_hidden_layers": 6, "vocab_size": 50304, "rotary_pct": 0.25, "max_position_embeddings": 2048}
    theirs, directory = torch_checkpoint(**shape, **keys, initializer_range=0.02)
    ours = models.load(directory)
    assert ours.num_params == sum(parameter.numel() for parameter in theirs.parameters())
    assert largest_difference(theirs, ours, batch=2, length=64) <= 1e-4


def test_right_padding_changes_nothing_before_it(torch_checkpoint):
    theirs, directory = torch_checkpoint()
    ours = models.load(directory)
    tokens_BT = np.random.default_rng(0).integers(0, 61, (3, 12))
    lengths_B = [12, 7, 1]
    mask_BT = np.arange(12)[None] < np.array(lengths_B)[:, None]
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens_BT), attention_mask=torch.tensor(mask_BT.astype(int))).logits.numpy()
    logits = np.asarray(ours(tokens_BT)[0])
    assert np.abs(logits - expected)[mask_BT].max() <= 1e-4


def test_old_and_new_rope_forms_give_one_model(torch_checkpoint, edit_config):
    theirs, directory = torch_checkpoint(rotary_pct=0.5, rotary_emb_base=700)
    new = models.load(directory)
    edit_config(directory, rope_parameters=None, rotary_pct=0.5, rotary_emb_base=700)
    old = models.load(directory)
    assert new.config == old.config and hash(new.config) == hash(old.config)
    assert (new.config.rotary_dim, new.config.rope_theta) == (4, 700.0)
    assert largest_difference(theirs, old) <= 1e-4


def test_logits_are_right_far_beyond_the_first_positions(torch_checkpoint):
    theirs, directory = torch_checkpoint(rotary_pct=1.0, max_position_embeddings=2048)
    ours = models.load(directory)
    tokens_BT = np.random.default_rng(0).integers(0, 61, (1, 6))
    positions_BT = np.arange(2000, 2006)[None]
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens_BT), position_ids=torch.tensor(positions_BT)).logits.numpy()
    assert np.abs(np.asarray(ours(tokens_BT, positions_BT=positions_BT)[0]) - expected).max() <= 1e-3
