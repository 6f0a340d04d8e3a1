"""Heads published elsewhere: every spelling that servers take is read, and what is not computed here is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaspec_jax import models
from adaspec_jax.drafter_file import kind_in
from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from tests.models.heads import setting

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 61, (2, 9)))


@pytest.fixture
def target(tiny_of):
    return tiny_of("llama", num_hidden_layers=7)


@pytest.fixture
def published(target, tmp_path):
    """`published(variant)` is (our head, its directory without a word of ours)."""

    def make(variant):
        head = setting.new(variant, target)
        models.save_head(head, tmp_path)
        (tmp_path / "drafter.json").unlink()
        return head, tmp_path

    return make


def laws(head, target):
    features = heads.features_of(target, TOKENS, head.config.layers)
    made = head.guessed(target, TOKENS, features)
    return [head.config.spread(head, head.logits(target, hidden, i)) for i, hidden in enumerate(made)]


def assert_guesses_alike(one, other, target, atol=1e-5):
    for a, b in zip(laws(one, target), laws(other, target), strict=False):
        np.testing.assert_allclose(a, b, atol=atol)


def change(directory, *, rename=None, drop=(), add=None, config=None, without=()):
    """Edits a head's files: names by a function, tensors and keys of config.json added or dropped."""
    file = directory / "model.safetensors"
    tensors = {(rename or str)(name): value for name, value in load_file(file).items() if name not in drop}
    save_file(tensors | (add or {}), file)
    said = json.loads((directory / "config.json").read_text()) | (config or {})
    said = {key: value for key, value in said.items() if key not in without}
    (directory / "config.json").write_text(json.dumps(said))


SERVED = [name for name in setting.VARIANTS if name.startswith(("eagle", "medusa", "dflash", "p_eagle"))]


@pytest.mark.parametrize("variant", SERVED)
def test_a_served_layout_is_enough_to_rebuild_a_head(variant, target, published):
    head, directory = published(variant)
    assert kind_in(directory) == head.config.name
    read = models.load_head(directory, target)
    assert read.config.layers == head.config.layers
    assert_guesses_alike(head, read, target)


def old_layer(name):
    return name.replace("midlayer.", "layers.0.")


def test_eagle3_has_its_layer_under_two_names(target, published):
    head, directory = published("eagle3_vocabulary")
    change(directory, rename=old_layer)
    assert_guesses_alike(head, models.load_head(directory, target), target)


def test_eagle_is_recognised_by_its_tensors_where_config_json_is_a_plain_llamas(target, published):
    head, directory = published("eagle")
    change(directory, config={"architectures": ["LlamaForCausalLM"]}, without=["head_dim"])
    assert kind_in(directory) == "eagle"
    assert_guesses_alike(head, models.load_head(directory, target), target)


def test_eagle_is_recognised_in_several_files_too(target, published):
    head, directory = published("eagle")
    change(directory, config={"architectures": ["LlamaForCausalLM"]})
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    named = dict.fromkeys(load_file(directory / "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    assert kind_in(directory) == "eagle"
    assert_guesses_alike(head, models.load_head(directory, target), target)


def test_eagle_without_a_bias_in_its_file_has_none(target, published):
    head, directory = published("eagle")
    change(directory, drop=["fc.bias"])
    assert_guesses_alike(head, models.load_head(directory, target), target)


@pytest.mark.parametrize("variant", ["eagle", "eagle3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_copy_of_the_targets_embeddings_is_left_aside_and_another_is_refused(variant, dtype, target, published):
    head, directory = published(variant)
    rows = np.asarray(target.params["embed"]["embedding"].astype(dtype))
    change(directory, add={"embed_tokens.weight": rows})
    assert_guesses_alike(head, models.load_head(directory, target), target)
    change(directory, add={"embed_tokens.weight": rows[::-1].copy()})
    with pytest.raises(UserError, match="embed_tokens.weight differs from the target's"):
        models.load_head(directory, target)


def test_eagle3_without_an_output_matrix_has_the_targets(target, published):
    _, directory = published("eagle3")
    change(directory, drop=["lm_head.weight"])
    read = models.load_head(directory, target)
    np.testing.assert_array_equal(read.params["head"]["kernel"], target.params["head"]["kernel"])
    change(directory, add={"d2t": np.zeros(61, np.int64)}, without=["draft_vocab_size"])
    assert_guesses_alike(read, models.load_head(directory, target), target)


def test_eagle3_of_the_speculators_library_is_read_with_its_defaults(target, published):
    head, directory = published("eagle3_vocabulary")
    config = json.loads((directory / "config.json").read_text())
    layer = {key: value for key, value in config.items() if key not in ("draft_vocab_size", "norm_before_residual")}
    said = {"speculators_model_type": "eagle3", "transformer_layer_config": layer, "draft_vocab_size": 20}
    said |= {"architectures": ["Eagle3Speculator"], "target_hidden_size": None}
    (directory / "config.json").write_text(json.dumps(said | {"eagle_aux_hidden_state_layer_ids": [2, 3, 4]}))
    change(directory, rename=old_layer, add={"verifier_norm.weight": np.ones(32, np.float32)})
    assert kind_in(directory) == "eagle3"
    read = models.load_head(directory, target)
    assert read.config.norm_residual and read.config.layers == (1, 2, 3)
    assert_guesses_alike(head, read, target)
    (directory / "config.json").write_text(json.dumps(said | {"norm_before_residual": False}))
    assert not models.load_head(directory, target).config.norm_residual


def medusa_of_old(name):
    parts = name.split(".")
    if parts[0] == "blocks":
        return f"{parts[1]}.{parts[3]}.linear.{parts[4]}"
    return f"{parts[1]}.2.weight"


def test_medusa_has_two_spellings(target, published):
    head, directory = published("medusa_blocks")
    change(directory, rename=medusa_of_old)
    said = {"medusa_num_heads": 2, "medusa_num_layers": 2, "hidden_size": 32}
    (directory / "config.json").write_text(json.dumps(said))
    assert kind_in(directory) == "medusa"
    assert_guesses_alike(head, models.load_head(directory, target), target)


def test_medusa_without_matrices_has_the_targets(target, published):
    _, directory = published("medusa")
    change(directory, drop=[f"lm_heads.{i}.weight" for i in range(4)], config={"original_lm_head": True})
    kernel = models.load_head(directory, target).params["head_3"]["head"]["kernel"]
    np.testing.assert_array_equal(kernel, target.params["head"]["kernel"])


def test_medusa_may_name_every_tensor_after_itself_and_cut_nothing_off(target, published):
    head, directory = published("medusa")
    change(directory, rename="medusa_heads.{}".format, config={"truncated_vocab_size": 61})
    assert_guesses_alike(head, models.load_head(directory, target), target)


def test_medusas_one_matrix_is_the_first_heads_where_there_is_one(target, published):
    head, directory = published("medusa")
    change(directory, drop=[f"lm_heads.{i}.weight" for i in (1, 2)], config={"original_lm_head": True})
    read = models.load_head(directory, target)
    for i in range(4):
        np.testing.assert_array_equal(
            read.params[f"head_{i}"]["head"]["kernel"], head.params["head_0"]["head"]["kernel"]
        )


def test_a_whole_vocabulary_may_be_left_unsaid_or_null_and_is_one_beside_a_target_with_padding_rows(target, published):
    head, directory = published("eagle3")
    padded = target.with_vocabulary(50)
    for said in (61, None):
        change(directory, config={"draft_vocab_size": said})
        assert_guesses_alike(head, models.load_head(directory, target), target)
        read = models.load_head(directory, padded)
        assert not read.config.own_vocabulary and read.config.vocabulary == 0
        assert not {*range(50, 61)} & {*np.asarray(laws(read, padded)[0]).argmax(-1).ravel()}


def test_a_head_may_have_other_sizes_than_its_target_and_keeps_them(tiny_of, published, tmp_path):
    slim = tiny_of("llama", num_hidden_layers=7, intermediate_size=24, num_attention_heads=2, rope_theta=5000.0)
    head = setting.new("eagle3_vocabulary", slim)
    models.save_head(head, tmp_path / "slim")
    (tmp_path / "slim" / "drafter.json").unlink()
    wide = tiny_of("llama", num_hidden_layers=7)
    read = models.load_head(tmp_path / "slim", wide)
    assert (read.config.sizes.intermediate_size, read.config.sizes.num_heads) == (24, 2)
    assert read.config.sizes.rope_theta == 5000.0
    models.save_head(read, tmp_path / "again")
    again = models.load_head(tmp_path / "again", wide)
    assert again.config == read.config
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.params, read.params))


@pytest.mark.parametrize(
    ("variant", "edits", "says"),
    [
        ("eagle3", {"config": {"norm_before_fc": True}}, '"norm_before_fc" is True'),
        ("eagle3", {"config": {"eagle_config": {"norm_before_fc": True}}}, '"norm_before_fc" is True'),
        ("eagle3", {"config": {"eagle_config": {"use_aux_hidden_state": False}}}, '"use_aux_hidden_state" is false'),
        ("eagle3", {"config": {"eagle_config": [1]}}, r'"eagle_config" is \[1\]; an object is needed'),
        ("eagle3", {"config": {"transformer_layer_config": 1}}, '"transformer_layer_config" is 1; an object is'),
        ("eagle3", {"config": {"draft_vocab_size": "61"}}, "a whole number is needed"),
        ("eagle3", {"config": {"attention_bias": True}}, '"attention_bias" is true'),
        ("eagle3", {"config": {"model_type": "qwen3"}}, 'model_type "qwen3"'),
        ("eagle3", {"config": {"num_hidden_layers": 2}}, '"num_hidden_layers" is 2'),
        ("eagle3", {"config": {"hidden_act": "gelu"}}, '"hidden_act" is "gelu"'),
        ("eagle3", {"config": {"parallel_drafting": True}}, '"pard_token" is None; a whole number'),
        ("eagle3", {"config": {"parallel_drafting": True, "pard_token": 3}}, "missing .*mask_hidden"),
        ("eagle3", {"config": {"pard_token": 3}}, '"pard_token" is 3'),
        ("p_eagle", {"config": {"num_hidden_layers": 3}}, r"missing .*layers.2"),
        ("p_eagle", {"config": {"pard_token": 61}}, "mask is 61; the target has 61 vocabulary rows"),
        ("p_eagle", {"config": {"speculators_model_type": "peagle"}}, 'kind "peagle" are not known here'),
        ("eagle3", {"config": {"hidden_size": 64}}, "hidden_size is 64, and 32 in the target"),
        ("eagle3", {"config": {"target_hidden_size": 64}}, "target_hidden_size is 64, and 32"),
        ("eagle3", {"config": {"vocab_size": 80}}, "vocab_size is 80, and 61 in the target"),
        ("eagle3", {"config": {"draft_vocab_size": 62}}, "vocabulary is 62; the target has 61 tokens"),
        ("eagle3", {"config": {"eagle_aux_hidden_state_layer_ids": [0, 2]}}, "reads the embeddings"),
        ("eagle3", {"config": {"eagle_aux_hidden_state_layer_ids": [2, 8]}}, "taps has 7; the target has layers 0 to"),
        ("eagle3", {"config": {"eagle_aux_hidden_state_layer_ids": "2"}}, "a list of layers is needed"),
        ("eagle3", {"config": {"norm_output": "yes"}}, "true or false is needed"),
        ("eagle3", {"add": {"mask_hidden": np.ones((1, 96), np.float32)}}, '"pard_token" is None; a whole number'),
        ("eagle3", {"drop": ["midlayer.hidden_norm.weight"]}, "missing .*midlayer.hidden_norm.weight"),
        ("eagle3_vocabulary", {"drop": ["d2t"]}, "d2t is missing"),
        ("eagle3_vocabulary", {"drop": ["lm_head.weight"]}, "lm_head.weight is missing"),
        ("eagle3_vocabulary", {"add": {"d2t": np.full(20, 45)}}, "d2t must lead to tokens of the target"),
        ("eagle3_vocabulary", {"add": {"d2t": np.arange(20)[::-1] * 2}}, "ascending, each once"),
        ("eagle", {"add": {"layers.0.input_layernorm.weight": np.ones(32)}}, "unexpected .*input_layernorm"),
        ("eagle", {"config": {"speculators_model_type": "dflash"}}, "DFlash's drafts in the format of the speculators"),
        ("eagle", {"config": {"architectures": ["LlamaForCausalLMRedrafter"]}}, 'kind "LlamaForCausalLMRedrafter" are'),
        (
            "eagle",
            {"config": {"architectures": ["DFlashDraftModel"]}},
            "heads here have a layer of Qwen3",
        ),
        ("dflash", {"config": {"dflash_config": {"mask_token_id": 3}}}, '"target_layer_ids" is None'),
        ("dflash", {"config": {"dflash_config": {"target_layer_ids": [1, 4]}}}, '"mask_token_id" is None'),
        ("dflash", {"config": {"dflash_config": {"mask_token_id": 3, "target_layer_ids": [1, 9]}}}, "taps has 9"),
        ("dflash", {"config": {"dflash_config": {"causal": True}}}, '"causal" is True'),
        ("dflash", {"config": {"dflash_config": {"use_swa": True}}}, '"use_swa" is True'),
        ("dflash", {"config": {"layer_types": ["sliding_attention", "full_attention"]}}, '"layer_types" has windows'),
        ("dflash", {"config": {"is_neox_style": False}}, "turn features as Qwen3 does"),
        ("dflash", {"config": {"draft_vocab_size": 20}}, "guess among all of the target's tokens"),
        ("dflash", {"config": {"num_hidden_layers": 3}}, r"missing .*layers.2"),
        ("dflash", {"config": {"attention_bias": True}}, '"attention_bias" is true'),
        ("dflash", {"config": {"architectures": ["Qwen3DSparkModel"]}}, 'kind "Qwen3DSparkModel" are not known here'),
        ("eagle3", {"config": {"architectures": ["DFlashLlamaForCausalLM"]}}, 'kind "DFlashLlamaForCausalLM" are not'),
        ("eagle", {"config": {"speculators_model_type": "eagle"}}, "the speculators library are not read here"),
        ("medusa", {"config": {"truncated_vocab_size": 9}}, '"truncated_vocab_size" is 9'),
        ("medusa", {"config": {"num_heads": 5}}, r"missing \(3\): blocks.4"),
        ("medusa", {"add": {"token_map": np.arange(9)}}, "token_map"),
        ("hydra", {}, "drafter.json alone"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name_in_one_line(variant, edits, says, target, published):
    _, directory = published(variant)
    change(directory, **edits)
    with pytest.raises(UserError, match=says) as error:
        models.load_head(directory, target)
    assert str(directory) in str(error.value) and "\n" not in str(error.value)
