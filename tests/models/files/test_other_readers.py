"""A config.json that is written means the same to transformers 4.57 and 5: rotary keys in the old places."""

import copy
import dataclasses
import json
import os
import subprocess

import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.models import families
from adaspec_jax.models.files import directories

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ROPE = {
    "llama": LLAMA3,
    "qwen2": {"rope_type": "default", "rope_theta": 5e5},
    "qwen3": {"rope_type": "default", "rope_theta": 5e5},
    "mixtral": {"rope_type": "default", "rope_theta": 5e5},
    "qwen3_moe": {"rope_type": "default", "rope_theta": 5e5},
    "phi": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.25},
    "gpt_neox": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
}
ROPE |= {
    "gemma3_text": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
    "mistral": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 32},
    "smollm3": {"rope_type": "default", "rope_theta": 5e5},
    "phi3": {
        **{"rope_type": "longrope", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
        **{"short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]},
    },
}
STRETCHED = ("gemma3_text", "llama", "mistral", "phi3")
IN_TRANSFORMERS_4 = """
import json, sys, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
for directory in sys.argv[1:]:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        print(json.dumps(model(torch.arange(20)[None]).logits[0].tolist()))
"""


@pytest.fixture
def written(torch_checkpoint, tmp_path):
    """`written(family)` is (logits of what transformers wrote, the directory that we write of it)."""
    torch = pytest.importorskip("torch")

    def make(family):
        theirs, directory = torch_checkpoint(
            model_type=family, directory=tmp_path / f"{family}-theirs", rope_parameters=copy.deepcopy(ROPE[family])
        )
        assert "rope_parameters" in json.loads((directory / "config.json").read_text())
        models.save(models.load(directory), tmp_path / family)
        with torch.no_grad():
            return theirs(torch.arange(20)[None]).logits[0].numpy(), tmp_path / family

    return make


@pytest.mark.parametrize("family", ROPE)
def test_rotary_keys_are_where_both_look(written, family):
    from transformers import AutoModelForCausalLM

    logits, directory = written(family)
    config = json.loads((directory / "config.json").read_text())
    assert "rope_parameters" not in config and (family in STRETCHED) == ("rope_scaling" in config)
    import torch

    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(directory).eval()(torch.arange(20)[None]).logits[0].numpy()
    np.testing.assert_allclose(again, logits, atol=1e-5)
    ours, _ = models.load(directory)(np.arange(20)[None])
    np.testing.assert_allclose(np.asarray(ours)[0], logits, atol=1e-3)


def test_transformers_4_reads_the_same_function(written):
    """ADASPEC_TRANSFORMERS4 is the Python of an environment of its own, with transformers 4.57."""
    python = os.environ.get("ADASPEC_TRANSFORMERS4") or pytest.skip("ADASPEC_TRANSFORMERS4 is not set")
    expected, directories = zip(*(written(family) for family in ROPE), strict=True)
    command = [python, "-c", IN_TRANSFORMERS_4, *map(str, directories)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert ran.returncode == 0, ran.stderr
    for logits, line in zip(expected, ran.stdout.splitlines(), strict=True):
        np.testing.assert_allclose(np.asarray(json.loads(line)), logits, atol=1e-4)


@pytest.mark.parametrize("family", ["phi3", "smollm3"])
def test_a_small_vocabulary_has_no_padding_beyond_it(tiny_of, tmp_path, family):
    transformers = pytest.importorskip("transformers")
    model = tiny_of(family)
    hf = {key: value for key, value in model.config.hf_config().items() if key != "pad_token_id"}
    silent = dataclasses.replace(model, config=dataclasses.replace(model.config, source=json.dumps(hf)))
    models.save(silent, tmp_path)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).config.pad_token_id is None


def test_the_paddings_known_are_those_that_transformers_takes_beyond_a_small_vocabulary():
    transformers = pytest.importorskip("transformers")
    silent = {
        name: getattr(transformers.AutoConfig.for_model(name), "pad_token_id", None) for name in families.FAMILIES
    }
    assert {name: token for name, token in silent.items() if token is not None and token > 1} == directories.PADS
