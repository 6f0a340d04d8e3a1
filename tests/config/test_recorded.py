"""A config is read back from what a run's config.json has of it."""

import json

import pytest

from adaspec_jax.command_line import load_config
from adaspec_jax.config import (
    Described,
    Experiment,
    Gemma3Text,
    LinearRope,
    Llama,
    LongRope,
    Phi3,
    Target,
    experiment_of,
    flatten,
)
from tests.running import CHECKOUT


@pytest.mark.parametrize("file", sorted((CHECKOUT / "configs").glob("*.py")), ids=lambda file: file.stem)
def test_a_config_comes_back_from_its_keys(file):
    config = load_config(str(file))
    assert experiment_of(json.loads(json.dumps(flatten(config)))) == config


def test_nested_architectures_and_absent_ones_come_back_and_unknown_keys_are_passed_over():
    config = Experiment(target=Target(init="x", architecture=Llama(num_hidden_layers=2)))
    assert experiment_of(flatten(config) | {"checksum": 3, "no.such": 1}) == config
    for architecture in (
        Phi3(rope_scaling=LongRope((1.0,), (2.0,))),
        Gemma3Text(layer_types=("full_attention",), rope_scaling=LinearRope()),
        Described.of({"model_type": "new", "vocab_size": 7, "num_hidden_layers": 1, "layer_types": ["x"]}),
    ):
        config.draft.architecture = architecture
        assert experiment_of(json.loads(json.dumps(flatten(config)))) == config
    config.draft.architecture = None
    assert experiment_of(flatten(config)).draft.architecture is None
