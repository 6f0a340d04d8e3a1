"""Tensors under every name that transformers reads: with the base model's prefix or without, tied ones stored once."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaspec_jax import convert, models
from adaspec_jax.errors import UserError
from adaspec_jax.models.families import FAMILIES
from tests.models.conftest import QUICK

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BIASED = ("codegen", "phi")
EMBEDDINGS = {name: "embed_tokens" for name in FAMILIES if name not in BIASED} | {"gpt2": "wte", "gpt_neox": "embed_in"}
TIED = sorted(EMBEDDINGS)  # the heads of the others have biases
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 14))


def written(state, directory):
    state = {name: tensor.detach().clone().contiguous().numpy() for name, tensor in state.items()}
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def assert_read_as_by_transformers(directory, expected):
    back, info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(back.eval()(torch.tensor(TOKENS_BT)).logits, expected)
    np.testing.assert_allclose(models.load(directory)(TOKENS_BT)[0], expected, atol=1e-4)


def logits_of(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS_BT)).logits.numpy()


@pytest.mark.parametrize("stored", ["both", "head", "embedding"])
@pytest.mark.parametrize("name", TIED)
def test_a_tied_tensor_is_read_under_either_name(torch_checkpoint, name, stored):
    theirs, directory = torch_checkpoint(model_type=name, tie_word_embeddings=True)
    embedding = f"{theirs.base_model_prefix}.{EMBEDDINGS[name]}.weight"
    state = theirs.state_dict()
    assert {embedding, "lm_head.weight"} < set(state)
    if stored != "both":
        del state[embedding if stored == "head" else "lm_head.weight"]
    expected, prefix = logits_of(theirs), theirs.base_model_prefix + "."
    for rename in (str, lambda x: x.removeprefix(prefix), lambda x: prefix + x.removeprefix(prefix)):
        written({rename(key): tensor for key, tensor in state.items()}, directory)
        assert_read_as_by_transformers(directory, expected)
    if name == "gpt_neox" and stored != "embedding":
        written({key.replace("lm_head", "embed_out"): tensor for key, tensor in state.items()}, directory)
        assert_read_as_by_transformers(directory, expected)


@pytest.mark.parametrize("name", QUICK)
def test_a_head_of_its_own_is_read_with_and_without_the_prefix(torch_checkpoint, name):
    theirs, directory = torch_checkpoint(model_type=name, tie_word_embeddings=False)
    expected, prefix = logits_of(theirs), theirs.base_model_prefix + "."
    for rename in (str, lambda x: x.removeprefix(prefix), lambda x: prefix + x.removeprefix(prefix)):
        written({rename(key): tensor for key, tensor in theirs.state_dict().items()}, directory)
        assert_read_as_by_transformers(directory, expected)
    written({rename(key): x for key, x in theirs.state_dict().items() if "lm_head.weight" not in key}, directory)
    with pytest.raises(UserError, match=r"missing \(1\): (lm_head|embed_out).weight$"):
        models.load(directory)


@pytest.mark.parametrize("name", TIED)
def test_what_save_model_of_safetensors_leaves_is_read(torch_checkpoint, name):
    from safetensors.torch import save_model

    theirs, directory = torch_checkpoint(model_type=name, tie_word_embeddings=True)
    save_model(theirs, str(directory / "model.safetensors"), metadata={"format": "pt"})
    assert_read_as_by_transformers(directory, logits_of(theirs))


@pytest.mark.parametrize(("name", "tied"), [*((x, True) for x in TIED), *((x, False) for x in sorted(FAMILIES))])
def test_a_state_dict_that_was_pickled_is_read_once_converted(torch_checkpoint, tmp_path, name, tied):
    theirs, directory = torch_checkpoint(model_type=name, tie_word_embeddings=tied)
    (directory / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), directory / "pytorch_model.bin")
    convert.main(["--in", str(directory), "--out", str(tmp_path / "out")])
    assert_read_as_by_transformers(tmp_path / "out", logits_of(theirs))


def test_two_names_for_one_tensor_are_refused(torch_checkpoint):
    theirs, directory = torch_checkpoint(model_type="llama")
    state = theirs.state_dict()
    written(state | {"norm.weight": state["model.norm.weight"]}, directory)
    with pytest.raises(UserError, match=r"unexpected \(1\): norm.weight$"):
        models.load(directory)


@pytest.mark.parametrize("name", QUICK)
def test_heads_of_other_trainers_are_named_once_and_not_read(torch_checkpoint, capsys, name):
    theirs, directory = torch_checkpoint(model_type=name)
    heads = {"v_head.summary.weight": np.ones((1, 32), np.float32), "v_head.summary.bias": np.ones(1, np.float32)}
    heads |= {"score.weight": np.ones((2, 32), np.float32)}
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors | heads, directory / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    models.load(directory)
    said = capsys.readouterr()
    assert said.out == "" and said.err == (
        f"{directory}: heads beside the language model's are not read (3): "
        "score.weight, v_head.summary.bias, v_head.summary.weight\n"
    )
    assert_read_as_by_transformers(directory, logits_of(theirs))
    assert "heads beside" not in capsys.readouterr().err

    save_file(tensors | heads | {"scores.weight": heads["score.weight"]}, directory / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected \(1\): scores.weight$"):
        models.load(directory)
    assert capsys.readouterr().err == ""
