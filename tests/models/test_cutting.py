"""A cut of a model is that model run through some layers alone, in all families, here and in transformers."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models.cutting import CUT, cut, cut_from
from adaspec_jax.models.families import FAMILIES
from tests.models.conftest import ALIKE
from tests.running import slow

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 9))
LAYERS = (0, 2, 3)
FIVE = {"num_hidden_layers": 5}
OTHERS = {
    **{name: {} for name in FAMILIES},
    "llama, tied": {"tie_word_embeddings": True},
    "gpt2, untied": {"tie_word_embeddings": False},
}


@pytest.fixture(params=[slow(name) if name in ALIKE else name for name in OTHERS])
def model(request, tiny_of):
    name = request.param.partition(",")[0]
    return tiny_of(name, **({"n_layer": 5} if name in ("gpt2", "codegen") else FIVE), **OTHERS[request.param])


def only(layers, count):
    return tuple(layer in layers for layer in range(count) for _ in range(2))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_cut_gives_the_logits_of_a_run_through_its_layers_alone(model, stacked):
    model = model.stacked() if stacked else model
    expected = model.unembed(model.run(TOKENS_BT, keep=only(LAYERS, 5)).hidden)
    part = cut(model, LAYERS)
    np.testing.assert_array_equal(part.unstacked()(TOKENS_BT)[0], expected)
    np.testing.assert_allclose(part(TOKENS_BT)[0], expected, atol=1e-4)
    assert part.config.num_layers == 3 and ("layers_0" in part.params) != stacked
    cache = part.init_cache(2, 12)
    assert len(cache.keys) == 3
    np.testing.assert_allclose(part(TOKENS_BT, cache)[0], expected, atol=1e-4)


def test_a_cut_of_all_layers_is_the_model(model):
    whole = cut(model, range(5))
    assert whole.config == model.config and whole.config.hf_config() == model.config.hf_config()
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, whole.params, model.params))


def test_a_saved_cut_is_what_its_config_json_describes_and_transformers_computes(model, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    part = cut(model, LAYERS, origin="some/model")
    assert models.config_from_hf(part.config.hf_config()) == part.config
    models.save(part, tmp_path / "part")
    theirs, said = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "part", dtype=torch.float32, output_loading_info=True
    )
    assert not any(said.values())  # nothing is missing, nothing is left over
    assert theirs.config.num_hidden_layers == 3
    with torch.no_grad():
        logits = theirs.eval()(torch.tensor(TOKENS_BT)).logits.numpy()
    ours = part(TOKENS_BT)[0]
    np.testing.assert_allclose(ours, logits, atol=1e-4 * np.abs(logits).max())
    again = models.load(tmp_path / "part")
    np.testing.assert_array_equal(again(TOKENS_BT)[0], ours)
    assert cut_from(again) == "cut from layers 0, 2, 3 of some/model"
    assert again.config.tie_embeddings == model.config.tie_embeddings


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_what_config_json_says_by_layer_stays_with_the_layers(model_type, tiny_of, tmp_path):
    transformers = pytest.importorskip("transformers")
    kinds = ["full_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    window = {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 2}  # of all 128 positions
    model = tiny_of(model_type, **FIVE, **window, layer_types=kinds)
    part = cut(model, LAYERS)
    hf = part.config.hf_config()
    assert hf["layer_types"] == ["full_attention", "sliding_attention", "full_attention"]
    assert hf["max_window_layers"] == 1 and hf["num_hidden_layers"] == 3
    models.save(part, tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).layer_types == hf["layer_types"]
    unsaid = cut(
        tiny_of(model_type, num_hidden_layers=30, use_sliding_window=True, sliding_window=128), (1, 27, 28, 29)
    )
    assert unsaid.config.hf_config()["max_window_layers"] == 2  # of 28, where the file is silent


def test_a_list_of_layers_that_is_not_known_is_refused_and_other_lists_stay(tiny_of):
    ends = {"eos_token_id": [2, 3, 4, 5, 6], "a_key_of_theirs": [1, 2, 3, 4, 5]}
    part = cut(tiny_of("llama", **FIVE, **ends), LAYERS)
    assert part.config.hf_config().items() >= ends.items() and part.config.eos_token_id == 2
    with pytest.raises(
        UserError, match='config.json: "no_rope_layers" lists layers, and what a cut leaves of it is not'
    ):
        cut(tiny_of("llama", **FIVE, no_rope_layers=[1, 1, 1, 0, 1]), LAYERS)


def test_masks_kernels_and_what_decoding_is_asked_stay(tiny_of):
    model = tiny_of("llama", **FIVE).with_vocabulary(50).with_attention("xla", "float32").with_rematerialisation(True)
    asks = json.dumps({"eos_token_id": [2, 3], "temperature": 0.5})
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, generation=asks))
    part = cut(model, LAYERS)
    assert dataclasses.replace(part.config, num_layers=5) == model.config
    assert part.config.generation == asks and models.asked_of(part) == models.asked_of(model)
    assert part.config.owned() == 50
    assert (np.asarray(part(TOKENS_BT)[0][..., 50:]) < -1e8).all()


def test_a_cut_of_a_cut_says_nothing_that_is_not_true_of_it(tiny_of):
    first = cut(tiny_of("llama", **FIVE), LAYERS, origin="some/model")
    assert cut_from(cut(first, (1, 2))) is None and CUT not in cut(first, (1, 2)).config.hf_config()
    assert cut_from(cut(first, (1,), origin="a cut")) == "cut from layer 1 of a cut"


@pytest.mark.parametrize("layers", [(), (0, 5), (-1, 2), (2, 1), (1, 1)])
def test_layers_that_are_not_there_or_out_of_order_are_refused(layers, tiny_of):
    with pytest.raises(ValueError, match="are not among 0 to 4, in increasing order"):
        cut(tiny_of("llama", **FIVE), layers)
