"""`python -m adaspec_jax.convert`: pickled weights become safetensors, tensors only."""

import json
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from adaspec_jax import convert, models
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.models.files import pickles

torch = pytest.importorskip("torch")


@pytest.fixture
def pickled(tiny_model, tmp_path):
    """`pickled(shards, **keys)` is (model, a directory with the model as pytorch_model*.bin)."""

    def make(shards=1, **keys):
        model, directory = tiny_model(**keys), tmp_path / "bin"
        models.save(model, directory)
        state = {name: torch.tensor(x) for name, x in load_file(directory / "model.safetensors").items()}
        (directory / "model.safetensors").unlink()
        (directory / "tokenizer.json").write_text('{"kept": true}')
        state["embed_out.weight"] = state.get("embed_out.weight", state["gpt_neox.embed_in.weight"])
        state["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
        if shards == 1:
            torch.save(state, directory / "pytorch_model.bin")
            return model, directory
        weight_map = {name: f"pytorch_model-{i % shards + 1}.bin" for i, name in enumerate(state)}
        for file in set(weight_map.values()):
            torch.save({name: state[name] for name in state if weight_map[name] == file}, directory / file)
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return model, directory

    return make


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_converted_weights_load_as_the_model_they_were(pickled, tmp_path, shards, tied):
    model, directory = pickled(shards, tie_word_embeddings=tied)
    convert.main(["--in", str(directory), "--out", str(tmp_path / "out")])
    back = models.load(tmp_path / "out")
    assert back.config == model.config
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"kept": true}'
    assert not list((tmp_path / "out").glob("pytorch_model*"))
    assert (tmp_path / "out" / "model.safetensors.index.json").exists() == (shards > 1)


def test_the_refusal_of_a_pickle_is_mended_by_the_command_it_names(pickled):
    model, directory = pickled()
    with pytest.raises(UserError) as refusal:
        models.load(directory)
    command = str(refusal.value).split("`")[1].split()
    assert command[:3] == ["python", "-m", "adaspec_jax.convert"]
    convert.main(command[3:])
    assert models.load(directory).config == model.config


def test_every_tensor_is_kept_even_those_the_loader_drops(pickled, tmp_path):
    _, directory = pickled(tie_word_embeddings=True)
    pickles.convert(directory, tmp_path / "out")
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {"embed_out.weight", "gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.bias"} <= set(names)


def test_a_pickle_that_holds_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    torch.save({"weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin cannot be read as tensors only"):
        pickles.convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "sprung").exists()


def test_a_user_mistake_is_one_line_and_status_2(pickled, tmp_path, capsys, monkeypatch):
    def run(source):
        with pytest.raises(SystemExit) as exit_info:
            exit_with_one_line(lambda: convert.main(["--in", str(source), "--out", str(tmp_path / "out")]))
        message = capsys.readouterr().err
        assert exit_info.value.code == 2 and message.count("\n") == 1
        return message

    assert "no such directory" in run(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "nothing to convert" in run(tmp_path / "empty")
    _, directory = pickled(3)
    (directory / "pytorch_model-2.bin").write_bytes(b"cut")
    assert "pytorch_model-2.bin cannot be read" in run(directory)
    (directory / "pytorch_model-2.bin").unlink()
    assert "not there: pytorch_model-2.bin" in run(directory)
    torch.save({"epoch": 3}, tmp_path / "empty" / "pytorch_model.bin")
    assert "something other than a dictionary of tensors" in run(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install torch" in run(tmp_path / "empty")
