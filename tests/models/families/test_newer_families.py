"""Families with windows, soft caps, norms on both sides and stretched rotations: logits against transformers."""

import copy
import json

import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from tests.models.conftest import TINY_OF

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 150  # beyond every window and, but for one family, beyond what a ring holds
SHAPE = {"num_hidden_layers": 3, "max_position_embeddings": 256}
MIXED = ["full_attention", "sliding_attention", "full_attention"]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 3.0, 5.0, 9.0]}
NEW = {"rope_type": "default", "rope_theta": 500.0}
CASES = [
    ("mistral", {"sliding_window": 8}),
    ("mistral", {"sliding_window": None, "head_dim": 16, "rope_scaling": YARN}),
    ("mistral", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("ministral", {}),
    ("ministral", {"layer_types": MIXED}),
    (
        "ministral",
        {"layer_types": MIXED, "rope_scaling": YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "truncate": False}},
    ),
    ("gemma", {}),
    ("gemma", {"num_key_value_heads": 1, "attention_bias": True}),
    ("gemma", {"hidden_act": "relu", "rope_theta": 700.0}),
    ("gemma", {"hidden_act": "gelu", "initializer_range": 0.6}),  # the first files' name of the tanh form
    ("gemma2", {"query_pre_attn_scalar": 24}),
    ("gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "layer_types": MIXED}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 70}),
    ("gemma3_text", {"final_logit_softcapping": 4.0}),
    ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 300.0}),
    (
        "gemma3_text",
        {"layer_types": MIXED, "rope_parameters": {"full_attention": NEW | YARN, "sliding_attention": NEW}},
    ),
    ("olmo2", {}),
    ("olmo2", {"num_key_value_heads": 4, "attention_bias": True}),
    ("olmo2", {"rope_scaling": YARN | {"attention_factor": 0.7}}),
    ("smollm3", {}),
    ("smollm3", {"no_rope_layers": [0, 1, 1], "use_sliding_window": True, "sliding_window": 8}),
    ("smollm3", {"no_rope_layers": [0, 0, 0], "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ("granite", {}),
    ("granite", {"tie_word_embeddings": True, "attention_bias": True}),
    ("granite", {"mlp_bias": True, "rope_scaling": {"type": "linear", "factor": 3.0}}),
    ("phi3", {"original_max_position_embeddings": 256}),
    ("phi3", {"sliding_window": None, "partial_rotary_factor": 0.5}),
    ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 160}),
    ("llama", {"rope_scaling": YARN | {"mscale": 1.2, "mscale_all_dim": 0.8}}),
    ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "layer_types": MIXED}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 8}),
    ("mixtral", {"sliding_window": 8}),
    ("gpt_neox", {"rope_parameters": YARN | {"rope_theta": 500.0, "partial_rotary_factor": 1.0}}),
    ("phi", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}),
]
TOKENS_BT = np.random.default_rng(1).integers(0, 61, (2, LENGTH))


def logits_of(theirs, tokens_BT=TOKENS_BT):
    with torch.no_grad():
        return theirs(torch.tensor(tokens_BT)).logits.numpy()


@pytest.fixture
def checkpoint(torch_checkpoint):
    def make(family, keys):
        return torch_checkpoint(model_type=family, **copy.deepcopy(SHAPE | {"pad_token_id": 0} | keys))

    return make


@pytest.mark.parametrize(("family", "keys"), CASES, ids=str)
def test_logits_are_theirs_and_a_saved_directory_is_theirs_too(checkpoint, tmp_path, family, keys):
    theirs, directory = checkpoint(family, keys)
    ours, expected = models.load(directory), logits_of(theirs)
    assert np.abs(expected).max() > 0.1
    logits = np.asarray(ours(TOKENS_BT)[0])
    assert np.abs(logits - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert ours.num_params == sum(parameter.numel() for parameter in theirs.parameters())
    models.save(ours, tmp_path / "ours")
    again, said = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not any(said.values())
    np.testing.assert_array_equal(logits_of(again.eval()), expected)
    assert models.load(tmp_path / "ours").config == ours.config


@pytest.mark.parametrize(("family", "keys"), CASES[::3], ids=str)
def test_stacked_layers_of_several_kinds_are_those_of_one_kind_each(tiny_of, family, keys):
    model = tiny_of(family, **SHAPE, **keys)
    expected = model(TOKENS_BT)[0]
    np.testing.assert_allclose(model.stacked()(TOKENS_BT)[0], expected, atol=2e-5 * float(np.abs(expected).max()))


OLD_FORMS = [
    (
        "gemma3_text",
        {"rope_theta": 600.0, "rope_local_base_freq": 300.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    ("gemma2", {"rope_theta": 600.0}),
    ("phi3", {"rope_theta": 600.0, "partial_rotary_factor": 0.5}),
    ("smollm3", {"rope_theta": 600.0}),
    (
        "mistral",
        {"rope_theta": 600.0, "rope_scaling": {"type": "yarn"} | {k: YARN[k] for k in YARN if k != "rope_type"}},
    ),
    ("granite", {"rope_theta": 600.0}),
]


@pytest.mark.parametrize(("family", "keys"), OLD_FORMS, ids=str)
def test_the_forms_of_transformers_4_and_5_are_one_decoder(checkpoint, family, keys):
    """Version 5 writes the new form of what it reads in the old one."""
    _, directory = checkpoint(family, keys)
    new = json.loads((directory / "config.json").read_text())
    assert "rope_parameters" in new and "rope_theta" not in new
    old = TINY_OF[family] | SHAPE | keys
    assert models.config_from_hf(old) == models.load(directory).config


def test_a_longer_context_takes_what_transformers_takes_for_longer_texts(torch_checkpoint, edit_config):
    """Which frequencies hold must not change while a text grows, so config.json says for how long a text they are."""
    keys = {"original_max_position_embeddings": 32, "max_position_embeddings": 256, "rope_scaling": LONG}
    theirs, directory = torch_checkpoint(model_type="phi3", **copy.deepcopy(keys))
    short, expected = models.load(directory), logits_of(theirs)
    assert short.config.max_positions == 32
    np.testing.assert_allclose(short(TOKENS_BT[:, :32])[0], logits_of(theirs, TOKENS_BT[:, :32]), atol=1e-3)
    assert np.abs(np.asarray(short(TOKENS_BT)[0]) - expected).max() > 0.1
    edit_config(directory, adaspec_context=200)
    long = models.load(directory)
    assert long.config.max_positions == 200
    np.testing.assert_allclose(long(TOKENS_BT)[0], expected, atol=1e-4 * np.abs(expected).max())


def test_a_dynamic_stretch_is_that_of_the_length_it_is_taken_for(torch_checkpoint, edit_config):
    keys = {"max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}
    theirs, directory = torch_checkpoint(model_type="llama", **copy.deepcopy(keys))
    expected = logits_of(theirs)
    edit_config(directory, adaspec_context=LENGTH)
    ours = models.load(directory)
    assert ours.config.max_positions == LENGTH
    np.testing.assert_allclose(ours(TOKENS_BT)[0], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("family", "keys", "words"),
    [
        ("mistral", {"sliding_window": 0}, '"sliding_window" is 0; a positive integer'),
        ("gemma2", {"layer_types": ["sliding_attention"]}, '"layer_types" is .* 2 kinds, one per layer, are needed'),
        ("gemma2", {"layer_types": ["slidin_attention"] * 2}, '"layer_types" has "slidin_attention".* did you mean'),
        ("gemma2", {"sliding_window": None}, '1 of 2 layers attend to a window, and "sliding_window" does not say'),
        ("gemma", {"use_bidirectional_attention": True}, '"use_bidirectional_attention" is true'),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, '"attn_logit_softcapping" is not null'),
        ("gemma3_text", {"rope_parameters": {"full_attention": NEW, "other": NEW}}, '"rope_parameters" has "other"'),
        ("smollm3", {"no_rope_layers": [1, 2]}, '"no_rope_layers" is .* of 0 or 1 are needed'),
        ("phi3", {"rope_scaling": LONG | {"long_factor": [1.0]}}, '"long_factor" is .* a list of 4 numbers'),
        ("llama", {"rope_scaling": {"type": "linear"}}, '"factor" is missing'),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": "2"}}, "\"factor\" is '2'"),
        (
            "llama",
            {"rope_scaling": {"type": "dynamic", "factor": 1e300}},
            '"factor" is 1e.300; a number from 1 to 1,000,000',
        ),
        (
            "llama",
            {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rotate 4 features or more, not 2",
        ),
        ("llama", {"rope_theta": 1.0, "rope_scaling": YARN}, '"yarn" needs a "rope_theta" above 1'),
        ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 1}, '"longrope" needs an "original_max'),
        ("gpt_oss", {}, 'model_type "gpt_oss" is not supported: it needs attention sinks, and experts with biases'),
        ("granite", {"logits_scaling": 0}, '"logits_scaling" is 0; a number above zero'),
    ],
)
def test_what_is_not_ported_or_makes_no_sense_is_one_line(tiny_of, family, keys, words):
    with pytest.raises(UserError, match=words) as error:
        tiny_of(family, **keys)
    assert "\n" not in str(error.value)
