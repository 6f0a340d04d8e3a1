"""Directories in and out: what transformers wrote is read, what is written transformers reads, mistakes are named."""

import json
import os
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models.families import FAMILIES
from adaspec_jax.models.files.directories import find_directory
from adaspec_jax.models.files.safetensors import open_tensors, write_tensors
from adaspec_jax.models.files.weights import tensors_from_params


def same_tensors(a, b):
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


@pytest.fixture
def saved(tiny_model, tmp_path):
    """`saved(**keys)` is (model, the directory it was saved to)."""

    def make(**keys):
        model = tiny_model(**keys)
        models.save(model, tmp_path / "ours")
        return model, tmp_path / "ours"

    return make


def change_tensors(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value, refused", [(65_500, False), (1e5, True), (-1e5, True)])
def test_weights_that_float16_has_no_room_for_are_not_made_infinite(value, refused, saved):
    _, directory = saved()
    change_tensors(directory, lambda tensors: np.put(next(iter(tensors.values())), 3, value))
    models.load(directory, dtype="bfloat16")
    if not refused:
        models.load(directory, dtype="float16")
        return
    with pytest.raises(UserError, match=r"has values beyond 65,504, which float16 has not; take bfloat16 or float32"):
        models.load(directory, dtype="float16")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", ["single", "sharded"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_load_then_save_gives_transformers_identical_tensors(torch_checkpoint, tmp_path, dtype, shards, tied):
    import torch
    import transformers

    size = "5GB" if shards == "single" else "20KB"
    theirs, directory = torch_checkpoint(dtype=getattr(torch, dtype), max_shard_size=size, tie_word_embeddings=tied)
    assert (directory / "model.safetensors.index.json").exists() == (shards == "sharded")
    model = models.load(directory, dtype=dtype)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.params)} == {dtype}
    models.save(model, tmp_path / "ours")

    back, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert back.dtype == theirs.dtype and type(back) is type(theirs)
    expected = theirs.state_dict()
    assert sorted(expected) == sorted(back.state_dict())
    assert all(torch.equal(expected[name], tensor) for name, tensor in back.state_dict().items())
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert ("embed_out.weight" in written) != tied and "lm_head.weight" not in written
    assert back.generation_config.eos_token_id == 2
    assert [file for file in os.listdir(tmp_path / "ours") if file.endswith(".tmp")] == []


@pytest.mark.parametrize("keys", [{}, {"tie_word_embeddings": True}, {"attention_bias": False}])
def test_save_then_load_gives_the_same_model_and_the_same_files(saved, tmp_path, keys):
    model, directory = saved(**keys)
    back = models.load(directory)
    assert back.config == model.config
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))
    models.save(back, tmp_path / "again")
    assert (directory / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()
    assert (directory / "config.json").read_bytes() == (tmp_path / "again" / "config.json").read_bytes()
    with safe_open(directory / "model.safetensors", "numpy") as file:
        assert file.metadata()["format"] == "pt"  # as transformers asks


def test_the_loaded_dtype_is_the_one_asked_for_whatever_is_on_disk(saved):
    model, directory = saved()
    half = models.load(directory, dtype=jnp.bfloat16)
    expected = jax.tree.map(lambda x: np.asarray(x).astype(ml_dtypes.bfloat16), model.params)
    assert all(map(np.array_equal, jax.tree.leaves(half.params), jax.tree.leaves(expected)))
    models.save(half, directory)
    config = json.loads((directory / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16" and "dtype" not in config
    assert models.load(directory).params["head"]["kernel"].dtype == jnp.float32


def test_unknown_config_keys_are_kept_and_the_dtype_key_keeps_its_name(saved, tmp_path):
    _, directory = saved(house_rule={"a": [1, None]}, dtype="float16", architectures=["MyNeoX"])
    config = json.loads((directory / "config.json").read_text())
    assert config["house_rule"] == {"a": [1, None]}
    assert config["dtype"] == "float32" and "torch_dtype" not in config
    assert config["architectures"] == ["MyNeoX"]


def test_legacy_buffers_are_dropped_silently(saved):
    model, directory = saved()

    def add(tensors):
        for i in range(3):
            tensors[f"gpt_neox.layers.{i}.attention.bias"] = np.tril(np.ones((1, 1, 8, 8), bool))
            tensors[f"gpt_neox.layers.{i}.attention.masked_bias"] = np.array(-1e9, np.float32)
            tensors[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = np.ones(2, np.float32)

    change_tensors(directory, add)
    back = models.load(directory)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))


def test_missing_unexpected_and_misshapen_tensors_are_reported_once_by_name(saved):
    _, directory = saved()

    def spoil(tensors):
        del tensors["gpt_neox.layers.1.attention.query_key_value.weight"]
        del tensors["gpt_neox.final_layer_norm.bias"]
        tensors["gpt_neox.layers.7.surprise"] = np.zeros(3, np.float32)
        tensors["embed_out.weight"] = tensors["embed_out.weight"][:60].copy()
        tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"] = np.zeros((32, 56), np.float32)
        tensors["gpt_neox.layers.0.mlp.dense_4h_to_h.weight"] = np.zeros((32, 56), np.uint8)

    change_tensors(directory, spoil)
    with pytest.raises(UserError) as error:
        models.load(directory)
    line = str(error.value)
    assert "\n" not in line and str(directory) in line
    for words in (
        "missing (2): gpt_neox.layers.1.attention.query_key_value.weight, gpt_neox.final_layer_norm.bias;",
        "unexpected (1): gpt_neox.layers.7.surprise;",
        "misshapen (2): gpt_neox.layers.0.mlp.dense_h_to_4h.weight [32, 56] instead of [56, 32], "
        "embed_out.weight [60, 32] instead of [61, 32]",
        "not floating point (1): gpt_neox.layers.0.mlp.dense_4h_to_h.weight U8",
    ):
        assert line.count(words) == 1


def test_a_tied_head_on_disk_is_tolerated_only_if_it_is_the_embedding(saved):
    _, directory = saved(tie_word_embeddings=True)
    change_tensors(directory, lambda tensors: tensors.update({"embed_out.weight": tensors["gpt_neox.embed_in.weight"]}))
    assert "head" not in models.load(directory).params
    change_tensors(directory, lambda tensors: tensors.update({"embed_out.weight": np.ones((61, 32), np.float32)}))
    with pytest.raises(UserError, match="embed_out.weight differs .*tie_word_embeddings"):
        models.load(directory)


def test_a_head_under_its_name_in_memory_is_read(saved):
    model, directory = saved()
    change_tensors(directory, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("embed_out.weight")}))
    np.testing.assert_array_equal(models.load(directory).params["head"]["kernel"], model.params["head"]["kernel"])


def shard(directory):
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, directory / file)
    (directory / "model.safetensors").unlink()
    weight_map = {name: file for file, part in parts.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def spoil_missing_shard(directory):
    shard(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()


def spoil_empty_index(directory):
    shard(directory)
    (directory / "model.safetensors.index.json").write_text("{}")


def spoil_truncated(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_weights_removed(directory):
    (directory / "model.safetensors").unlink()


def spoil_only_bin(directory):
    spoil_weights_removed(directory)
    (directory / "pytorch_model.bin").write_bytes(b"pickle")


def spoil_only_sharded_bin(directory):
    spoil_weights_removed(directory)
    (directory / "pytorch_model.bin.index.json").write_text("{}")


def spoil_config_removed(directory):
    (directory / "config.json").unlink()


def spoil_config_cut(directory):
    (directory / "config.json").write_text('{"model_type": "gpt_')


def spoil_config_list(directory):
    (directory / "config.json").write_text("[]")


def spoil_model_type(directory):
    (directory / "config.json").write_text('{"model_type": "bert"}')


def spoil_index_outside(directory):
    shard(directory)
    outside = directory.parent / "outside.safetensors"
    (directory / "model-00002-of-00002.safetensors").rename(outside)
    index = directory / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002-of-00002.safetensors", "../outside.safetensors"))


def spoil_layers(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))


def spoil_size(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": 10**15}))


def spoil_deep(directory):
    (directory / "config.json").write_text("[" * 200_000)


def spoil_value(value, kind, directory):
    """One value of one tensor, stored as this kind."""
    tensors = load_file(directory / "model.safetensors")
    spoilt = tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"].astype(jnp.dtype(kind))
    with np.errstate(over="ignore"):
        spoilt[3, 5] = value
    save_file(tensors | {"gpt_neox.layers.0.mlp.dense_h_to_4h.weight": spoilt}, directory / "model.safetensors")


NOT_FINITE = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight holds NaN or infinity"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        *((partial(spoil_value, value, "float32"), NOT_FINITE) for value in (np.nan, np.inf, -np.inf)),
        *((partial(spoil_value, value, "float64"), NOT_FINITE) for value in (np.nan, 1e300)),
        *((partial(spoil_value, value, "float16"), NOT_FINITE) for value in (np.nan, 1e6)),
        *((partial(spoil_value, value, "bfloat16"), NOT_FINITE) for value in (np.nan, -np.inf)),
        (spoil_index_outside, "lists '../outside.safetensors', which is not the name of a file beside it"),
        (spoil_layers, r"the tensors do not fit config.json: 1000000000 layers there, \d+ tensors"),
        (spoil_size, '"vocab_size" is 1000000000000000; a positive integer of 32 bits is needed'),
        (spoil_deep, "config.json is not valid JSON .nested too deep to be read"),
        (spoil_missing_shard, "not there: model-00002-of-00002.safetensors"),
        (spoil_empty_index, 'model.safetensors.index.json has no "weight_map"'),
        (spoil_truncated, "model.safetensors cannot be read; is it truncated"),
        (spoil_weights_removed, "has no model.safetensors"),
        (spoil_only_bin, r"python -m adaspec_jax.convert --in \S*ours --out \S*ours"),
        (spoil_only_sharded_bin, "python -m adaspec_jax.convert"),
        (spoil_config_removed, "has no config.json"),
        (spoil_config_cut, "config.json is not valid JSON"),
        (spoil_config_list, "config.json does not hold a JSON object"),
        (spoil_model_type, 'config.json: model_type "bert" is not supported; .*gpt_neox'),
    ],
    ids=lambda x: (x.__name__[6:] if hasattr(x, "__name__") else "-".join(map(str, x.args))) if callable(x) else "",
)
def test_a_spoilt_directory_is_a_user_error_that_names_the_file(saved, spoil, words):
    _, directory = saved()
    spoil(directory)
    with pytest.raises(UserError, match=words) as error:
        models.load(directory)
    assert str(directory) in str(error.value) and "\n" not in str(error.value)


def test_a_sharded_directory_loads_as_the_single_file_does(saved):
    model, directory = saved()
    shard(directory)
    back = models.load(directory)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(back.params)))


def test_a_name_that_is_no_directory_is_asked_of_the_hub_with_its_revision(saved, monkeypatch):
    import huggingface_hub

    model, directory = saved()
    asked = {}

    def snapshot_download(name, **keys):
        asked.update(keys, name=name)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert models.load("EleutherAI/pythia-31m", revision="step1000").config == model.config
    assert asked["name"] == "EleutherAI/pythia-31m" and asked["revision"] == "step1000"
    assert "*.safetensors" in asked["allow_patterns"] and not any("bin" in x for x in asked["allow_patterns"])


def test_a_name_the_hub_does_not_give_is_one_clear_line(monkeypatch):
    import huggingface_hub

    def snapshot_download(name, **_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match='"EleutherAI/nothing" is not a local directory.*no route') as error:
        models.load("EleutherAI/nothing")
    assert "\n" not in str(error.value)


def test_a_path_that_cannot_be_a_hub_name_never_reaches_the_hub(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        find_directory(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        find_directory(tmp_path / "file")


def test_the_tokenizer_is_saved_beside_the_weights(tiny_model, tmp_path):
    class Tokenizer:
        def save_pretrained(self, directory):
            for name in ("tokenizer.json", "tokenizer_config.json"):
                with open(os.path.join(directory, name), "w") as file:
                    file.write("{}")

    models.save(tiny_model(), tmp_path / "ours", tokenizer=Tokenizer())
    assert sorted(os.listdir(tmp_path / "ours")) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_parameter_no_row_claims_is_never_dropped_silently(tiny_model):
    model = tiny_model()
    with pytest.raises(ValueError, match="extra/kernel"):
        tensors_from_params(
            FAMILIES["gpt_neox"].table(model.config), model.params | {"extra": {"kernel": jnp.zeros(1)}}
        )


def test_equal_tensors_make_equal_files_in_whatever_order_they_come(tmp_path):
    tensors = {name: np.arange(size, dtype=np.float32) for name, size in (("b", 3), ("a", 4), ("c", 5))}
    for number in range(4):
        write_tensors(tmp_path / f"{number}.safetensors", dict(sorted(tensors.items(), reverse=number % 2 == 0)))
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(4)}) == 1


def test_a_tensor_that_changed_on_the_disk_is_named(tmp_path):
    file = tmp_path / "model.safetensors"
    write_tensors(file, {"a": np.arange(4, dtype=np.float32), "b": np.arange(8, dtype=np.float32)})
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x01
    file.write_bytes(content)
    tensors = open_tensors(tmp_path)
    assert tensors["a"].read().tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match=f"{file} is damaged: b is not what was written; copy it again"):
        tensors["b"].read()


@pytest.mark.parametrize("said", ["[1]", "deadbeef", "3", "null"])
def test_strangers_checksums_are_no_checksums_of_ours(tmp_path, said):
    """Under another key they mean what their writer means; under ours a file is damaged, and says so."""
    tensors = {"a": np.arange(4, dtype=np.float32)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt", "crc32": said})
    assert open_tensors(tmp_path)["a"].read().tolist() == [0, 1, 2, 3]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt", "adaspec_jax_crc32": said})
    with pytest.raises(UserError, match="model.safetensors cannot be read"):
        open_tensors(tmp_path)
