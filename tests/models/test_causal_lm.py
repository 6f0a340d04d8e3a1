"""`CausalLM` as a value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 9))


def test_unembedding_the_features_gives_the_logits(tiny_model):
    model = tiny_model()
    hidden, cache = model.features(TOKENS_BT)
    assert hidden.shape == (2, 9, 32) and cache is None
    logits, _ = model(TOKENS_BT)
    np.testing.assert_allclose(model.unembed(hidden), logits, atol=1e-5)
    np.testing.assert_allclose(model.unembed(hidden[:, 3]), logits[:, 3], atol=1e-5)
    np.testing.assert_allclose(model.unembed(hidden[1, 3]), logits[1, 3], atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_columns_past_the_vocabulary_have_probability_zero(tiny_model, tied):
    model = tiny_model(tie_word_embeddings=tied)
    assert model.config.num_tokens == 61
    small = model.with_vocabulary(50)
    logits, small_logits = model(TOKENS_BT)[0], small(TOKENS_BT)[0]
    np.testing.assert_array_equal(small_logits[..., :50], logits[..., :50])
    assert float(jax.nn.softmax(small_logits)[..., 50:].max()) == 0.0
    assert bool(jnp.isfinite(small_logits).all())
    # The output matrix alone: jax has no float16 attention on CPUs.
    half = small.astype(jnp.float16).unembed(model.features(TOKENS_BT)[0].astype(jnp.float16))
    assert bool(jnp.isfinite(half).all()) and float(half[..., 50:].max()) < -1e8


def test_a_vocabulary_that_does_not_fit_is_a_user_error(tiny_model):
    with pytest.raises(UserError, match="62 tokens .* vocab_size 61"):
        tiny_model().with_vocabulary(62)
    with pytest.raises(UserError, match="num_tokens 0"):
        tiny_model().with_vocabulary(0)


def test_a_gradient_flows_to_every_parameter(tiny_model):
    @jax.jit
    @jax.grad
    def gradient(model):
        log_probs = jax.nn.log_softmax(model(TOKENS_BT)[0][:, :-1])
        return -jnp.take_along_axis(log_probs, jnp.asarray(TOKENS_BT)[:, 1:, None], axis=-1).mean()

    model = tiny_model().with_vocabulary(61)
    gradients = gradient(model)
    assert gradients.config == model.config
    # A key bias shifts every score of a query alike: its true gradient is zero, except through rotation.
    flat = jax.tree_util.tree_flatten_with_path(gradients.params)[0]
    assert all(float(jnp.abs(leaf).max()) > 1e-8 for _, leaf in flat), [p for p, x in flat if not jnp.abs(x).max()]
    half = gradient(model.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_jit_takes_a_model_as_an_argument_and_compiles_once_for_equal_configs(tiny_model):
    traces = []

    @jax.jit
    def logits(model, tokens_BT):
        traces.append(1)
        return model(tokens_BT)[0]

    a, b = tiny_model(seed=0), tiny_model(seed=1, some_unknown_key=3)
    np.testing.assert_allclose(logits(a, TOKENS_BT), a(TOKENS_BT)[0], atol=1e-5)
    np.testing.assert_allclose(logits(b, TOKENS_BT), b(TOKENS_BT)[0], atol=1e-5)
    assert len(traces) == 1
    logits(a.with_vocabulary(60), TOKENS_BT)
    assert len(traces) == 2


def test_a_fresh_model_has_the_inits_of_its_config(tiny_model):
    model = models.build(
        dict(model_type="gpt_neox", vocab_size=500, hidden_size=64, intermediate_size=256, num_hidden_layers=2,
             num_attention_heads=4, initializer_range=0.05), jax.random.key(0), dtype=jnp.bfloat16,
    )  # fmt: skip
    layer = model.params["layers_1"]
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.bfloat16)}
    for kernel in (layer["attention"]["q"]["kernel"], layer["mlp"]["down"]["kernel"], model.params["head"]["kernel"]):
        assert float(kernel.astype(jnp.float32).std()) == pytest.approx(0.05, rel=0.1)
    assert float(jnp.abs(layer["attention"]["out"]["bias"]).max()) == 0.0
    assert bool((layer["mlp_norm"]["scale"] == 1).all())
    again = models.build(model.config.hf_config(), jax.random.key(0), dtype=jnp.bfloat16)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(again.params)))


def test_num_params_counts_tied_embeddings_once(tiny_model):
    assert tiny_model().num_params - tiny_model(tie_word_embeddings=True).num_params == 61 * 32


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model_type": "gpt_neo"}, 'model_type "gpt_neo" is not supported; supported: .*did you mean "gpt_neox"'),
        ({"model_type": None}, 'no "model_type"'),
        ({"hidden_act": "tanhh"}, 'unknown activation "tanhh"'),
        ({"hidden_size": "32"}, "\"hidden_size\" is '32'"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"rope_scaling": {"type": "bent", "factor": 2.0}}, 'rope type "bent"'),
        ({"rope_parameters": {"rope_type": "linear"}}, '"factor" is missing'),
    ],
)
def test_an_unusable_config_names_the_value(tiny_model, keys, words):
    with pytest.raises(UserError, match=words):
        tiny_model(**keys)


def test_a_config_without_a_size_names_the_missing_key():
    with pytest.raises(UserError, match='"hidden_size" is missing'):
        models.config_from_hf({"model_type": "gpt_neox"})


def unmasked(model):
    """The model as an engine sees it that knows nothing of rows without a token."""
    return model.with_vocabulary(model.config.vocab_size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("family", "tied"), [("gpt_neox", False), ("llama", True), ("qwen2", False), ("phi", False), ("codegen", False)]
)
def test_a_row_without_a_token_never_wins_and_weighs_no_more_than_an_average_token(tiny_of, family, tied, dtype):
    keys = {} if family in ("phi", "codegen") else {"tie_word_embeddings": tied}
    small = tiny_of(family, **keys).astype(dtype).with_vocabulary(50)
    # The first feature lifts every logit or lowers it: then a longer row, or one of zeros, would win.
    group, leaf = ("embed", "embedding") if tied else ("head", "kernel")
    rows = small.params[group][leaf]
    rows = rows.at[:, 0].set(3) if tied else rows.at[0].set(3)
    small = models.CausalLM(small.params | {group: small.params[group] | {leaf: rows}}, small.config)
    padded = small.with_vocabulary_size(80)
    hidden_BD = jax.random.normal(jax.random.key(1), (2000, small.config.hidden_size), dtype)
    hidden_BD = hidden_BD.at[:, 0].multiply(20)
    logits_BV = unmasked(padded).unembed(hidden_BD)
    assert logits_BV.shape == (2000, 80)
    assert int(logits_BV.argmax(-1).max()) < 50
    for temperature in (0.5, 1.0, 2.0):
        others = jax.nn.softmax(logits_BV / temperature)[:, 50:].sum(-1)
        bound = 0.0 if small.config.head_bias else 30 / 80
        assert float(others.max()) <= bound + 1e-6
    np.testing.assert_allclose(padded.unembed(hidden_BD)[:, :50], small.unembed(hidden_BD)[:, :50], atol=1e-4)
    assert float(padded.unembed(hidden_BD)[:, 50:].max()) < -1e8


def test_another_vocabulary_size_is_the_same_model_stacked_or_not_and_in_config_json(tiny_of):
    small = tiny_of("gpt_neox", some_unknown_key=3).with_vocabulary(50)
    padded = small.with_vocabulary_size(80)
    assert padded.config.vocab_size == 80 and padded.config.num_tokens == 50
    assert padded.config.hf_config() == small.config.hf_config() | {"vocab_size": 80}
    np.testing.assert_allclose(padded(TOKENS_BT % 50)[0][..., :50], small(TOKENS_BT % 50)[0][..., :50], atol=1e-5)
    stacked = small.stacked().with_vocabulary_size(80).unstacked()
    jax.tree.map(np.testing.assert_array_equal, stacked.params, padded.params)
    back = padded.with_vocabulary_size(50)
    assert back.params["embed"]["embedding"].shape == (50, 32) and back.params["head"]["kernel"].shape == (32, 50)
    np.testing.assert_allclose(back(TOKENS_BT % 50)[0], small(TOKENS_BT % 50)[0][..., :50], atol=1e-5)
    with pytest.raises(UserError, match="49 rows has no room for the tokenizer's 50 tokens"):
        padded.with_vocabulary_size(49)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("products", [None, "bfloat16"])
def test_the_output_matrix_is_what_hidden_states_are_multiplied_by(tiny_of, family, tied, products):
    model = tiny_of(family, tie_word_embeddings=tied and family != "phi")
    hidden_1TD = np.random.default_rng(1).normal(size=(1, 3, model.config.hidden_size)).astype(np.float32)
    logits = model.unembed(hidden_1TD) - model.unembed(0 * hidden_1TD)
    found = model.for_decoding(products).output_matrix().astype(np.float32)
    close = {"rtol": 2e-2, "atol": 2e-2} if products else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(hidden_1TD @ np.asarray(found), logits, **close)
