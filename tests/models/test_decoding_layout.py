"""A model laid out for decoding computes what the loaded one does, from the same files, and is only for that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, TreeDrafter, generate
from adaspec_jax.devices import sharding
from adaspec_jax.models.decoding_layout import product
from adaspec_jax.training import lora
from tests.models.conftest import ALIKE, TINY_OF
from tests.models.test_kv_cache import PARENTS, call, tree_inputs
from tests.running import slow

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (3, 14))
FAMILIES = [
    *(slow(family, {}) if family in ALIKE else (family, {}) for family in TINY_OF),
    ("llama", {"tie_word_embeddings": True}),
]


def leaf_names(model):
    return {"/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(model.params)}


def close(a, b, atol=1e-5):
    scale = float(np.abs(np.asarray(b)).max())
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol * max(scale, 1.0))


@pytest.mark.parametrize(("family", "keys"), FAMILIES, ids=str)
def test_logits_are_the_loaded_models_with_and_without_a_cache(tiny_of, family, keys):
    model = tiny_of(family, **keys)
    ours = model.for_decoding()
    assert "layers_1/attention/qkv/kernel" in leaf_names(ours) and "layers_1/attention/q/kernel" not in leaf_names(ours)
    assert ("layers_1/mlp/gate_up/kernel" in leaf_names(ours)) == (
        model.config.mlp == "gated" and not model.config.experts
    )
    expected, _ = call(model, TOKENS_BT)
    close(call(ours, TOKENS_BT)[0], expected)
    first, cache = call(ours, TOKENS_BT[:, :9], ours.init_cache(3, 20))
    close(first, expected[:, :9])
    for at in range(9, 14):
        logits, cache = call(ours, TOKENS_BT[:, at : at + 1], cache)
        close(logits, expected[:, at : at + 1])
    assert ours.num_params == model.num_params
    assert ours.dtype == model.dtype and ours.config == model.config


def test_a_tree_and_the_path_kept_of_it_are_the_loaded_models(tiny_of):
    model = tiny_of("qwen3")
    made = []
    for each in (model, model.for_decoding()):
        lengths_B = np.array([8, 5, 2])
        _, cache = call(each, TOKENS_BT[:, :8], each.init_cache(3, 16))
        cache = cache.roll_back(lengths_B)
        positions, mask = tree_inputs(cache, lengths_B, PARENTS)
        logits, cache = call(each, TOKENS_BT[:, 8:14], cache, positions_BT=positions, mask_BTS=mask)
        kept = cache.keep_path(jnp.asarray(lengths_B), jnp.array([[0, 2, 4, 5]] * 3)).roll_back(lengths_B + 4)
        made.append((logits, call(each, TOKENS_BT[:, :1], kept)[0]))
    jax.tree.map(close, *made)


@pytest.mark.parametrize("batch, family", [(1, "gpt_neox"), slow(1, "llama"), slow(3, "gpt_neox"), (3, "llama")])
def test_greedy_text_is_the_loaded_models_plain_and_speculative(tiny_of, family, batch):
    target, draft = tiny_of(family), tiny_of(family, num_hidden_layers=1)
    prompt = Context(TOKENS_BT[:batch, :6], np.array([6, 2, 4][:batch]))
    knobs = {"max_new_tokens": 24, "sampling": Sampling(0.0), "eos_id": -1}
    expected = generate(target, NoDraft(), prompt, jax.random.key(0), **knobs).tokens_BS
    target, draft = target.for_decoding(), draft.for_decoding()
    for drafter in (NoDraft(), ChainDrafter(draft, length=3), TreeDrafter(draft, (2, 1))):
        ours = generate(target, drafter, prompt, jax.random.key(0), **knobs).tokens_BS
        np.testing.assert_array_equal(ours, expected)


def test_layers_apart_are_run_and_skipped_as_before(tiny_of):
    model = tiny_of("llama")
    keep = (True, False, False, True)
    for how in ({"keep": keep}, {"last": 1}, {"taps": (0, -1)}):
        theirs, ours = (each.run(TOKENS_BT, **how) for each in (model, model.for_decoding()))
        jax.tree.map(close, (ours.hidden, ours.taps), (theirs.hidden, theirs.taps))


def test_stacked_layers_are_taken_apart_and_a_second_time_changes_nothing(tiny_of):
    model = tiny_of("qwen2")
    once = model.for_decoding()
    for again in (once.for_decoding(), model.stacked().for_decoding()):
        jax.tree.map(np.testing.assert_array_equal, again.params, once.params)


def test_rows_over_eight_devices_give_one_devices_text(tiny_of):
    model, mesh = tiny_of("gpt_neox").for_decoding(), sharding.make_mesh(8)
    tokens_BS = np.random.default_rng(1).integers(0, 61, (8, 6))
    knobs = {"max_new_tokens": 12, "sampling": Sampling(0.0), "eos_id": -1}
    one = generate(model, NoDraft(), Context(tokens_BS, np.full(8, 6)), jax.random.key(0), **knobs)
    there, rows = sharding.shard(model, mesh), sharding.shard_rows(Context(tokens_BS, np.full(8, 6)), mesh)
    with sharding.over(mesh):
        eight = generate(there, NoDraft(), rows, jax.random.key(0), **knobs)
    np.testing.assert_array_equal(eight.tokens_BS, one.tokens_BS)


def test_layers_with_a_low_rank_update_stay_as_they_are(tiny_of):
    model = tiny_of("llama")
    adapters = lora.init_lora(model, 2, jax.random.key(0))
    adapters = models.CausalLM(jax.tree.map(lambda x: x + 0.1, adapters.params), model.config)
    both = lora.attached(model, adapters)
    ours = both.for_decoding()
    assert "layers_0/attention/q/kernel" in leaf_names(ours)
    assert "head/weight" in leaf_names(both.for_decoding("bfloat16"))
    close(call(ours, TOKENS_BT)[0], call(both, TOKENS_BT)[0])


def test_elsewhere_than_on_cpus_the_parameters_stay_as_they_are(tiny_of):
    model = tiny_of("llama")
    assert model.for_decoding(backend="tpu") is model
    assert leaf_names(model.for_decoding("bfloat16", backend="tpu")) == leaf_names(model.for_decoding("bfloat16"))


def test_what_is_laid_out_cannot_be_saved(tiny_of, tmp_path):
    with pytest.raises(ValueError, match="laid out for decoding"):
        models.save(tiny_of("llama").for_decoding(), tmp_path / "out")
    with pytest.raises(ValueError, match="laid out for decoding"):
        models.save(tiny_of("gpt2", tie_word_embeddings=True).for_decoding("bfloat16"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_products_round_inputs_and_weights_alone(tiny_of, tied):
    model = tiny_of("llama", tie_word_embeddings=tied)
    ours = model.for_decoding("bfloat16")
    leaves = jax.tree_util.tree_leaves_with_path(ours.params)
    assert {(path[-1].key == "weight", str(leaf.dtype)) for path, leaf in leaves} == {
        (True, "bfloat16"),
        (False, "float32"),
    }
    jax.tree.map(np.testing.assert_array_equal, ours.for_decoding().params, ours.params)
    assert ours.num_params == model.num_params
    logits, cache = call(ours, TOKENS_BT, ours.init_cache(3, 16))
    assert logits.dtype == cache.keys[0].dtype == jnp.float32
    expected = call(model, TOKENS_BT)[0]
    assert 1e-4 < float(np.abs(logits - expected).max() / np.abs(expected).max()) < 0.05


def test_a_product_of_one_row_is_that_of_many():
    rng = np.random.default_rng(0)
    rows, weight = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((4, 24), (40, 24)))
    for dtype in (jnp.float32, jnp.bfloat16):
        expected = rows.astype(dtype).astype(jnp.float32) @ weight.astype(dtype).astype(jnp.float32).T
        for count in (1, 4):
            ours = product(rows[:count], weight.astype(dtype))
            assert ours.dtype == jnp.float32
            np.testing.assert_allclose(ours, expected[:count], atol=1e-4)
    assert product(rows[0], weight).shape == (40,)
