"""Adapters and quantised weights are said to be what they are."""

import json

import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.methods import load_drafter
from tests.models.conftest import QUICK


@pytest.fixture(params=[models.load, load_drafter], ids=["load", "load_drafter"])
def refused(request, tmp_path):
    """`refused()` is the one line with which the directory is refused."""

    def line():
        with pytest.raises(UserError) as error:
            request.param(str(tmp_path))
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        return str(error.value)

    return line


def edit(path, **changes):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


@pytest.mark.parametrize("name", QUICK)
def test_quantised_weights_are_named_by_their_method(tiny_of, tmp_path, refused, name):
    models.save(tiny_of(name), tmp_path)
    edit(tmp_path / "config.json", quantization_config=None)
    models.load(tmp_path)
    for said, method in (({"quant_method": "gptq", "bits": 4}, "gptq"), ({"load_in_8bit": True}, "unnamed")):
        edit(tmp_path / "config.json", quantization_config=said)
        line = refused()
        assert f'"quantization_config" in config.json the weights are quantised (quant_method: {method})' in line
        assert "give the directory or the hub name of the unquantised weights" in line


def test_an_adapter_is_named_with_its_model(tmp_path, refused):
    edit(tmp_path / "adapter_config.json", peft_type="LORA", base_model_name_or_path="maker/base")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "holds an adapter of maker/base, as its adapter_config.json says" in refused()
    edit(tmp_path / "adapter_config.json", base_model_name_or_path=None)
    assert "holds an adapter of an unnamed model" in refused()


def test_an_adapter_beside_a_model_is_not_left_out_silently(tiny_of, tmp_path, refused):
    models.save(tiny_of("llama"), tmp_path)
    edit(tmp_path / "adapter_config.json", base_model_name_or_path="maker/base")
    line = refused()
    assert "merge_and_unload" in line and "or remove the file where that is done" in line
    (tmp_path / "adapter_config.json").unlink()
    models.load(tmp_path)
