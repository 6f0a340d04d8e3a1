"""Which layers a draft that is cut has by default, and what follows from them."""

import dataclasses

import pytest

from adaspec_jax import models
from adaspec_jax.command_line import parse_experiment
from adaspec_jax.config import Described, Draft, Experiment, GPTNeoX, Llama, Qwen2, Target, validate, with_cut
from adaspec_jax.config.architectures import FAMILIES
from adaspec_jax.config.architectures.base import FULL, SLIDING
from adaspec_jax.config.cutting import evenly_spaced
from adaspec_jax.models.cutting import cut
from tests.models.conftest import TINY_OF
from tests.running import CHECKOUT


@pytest.mark.parametrize("count", range(1, 130))
def test_the_default_is_a_quarter_evenly_spaced_with_the_first_and_the_last(count):
    layers = evenly_spaced(count)
    assert layers[0] == 0 and layers[-1] == count - 1 and len(layers) >= min(2, count)
    assert count <= 6 or abs(len(layers) - count / 4) <= 0.5
    gaps = {after - before for before, after in zip(layers, layers[1:], strict=False)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize("cls", FAMILIES.values())
def test_layers_and_architecture_follow_from_the_target(cls):
    whole = dataclasses.replace(cls(), **{cls.DEPTH: 12})
    config = Experiment(target=Target(architecture=whole), draft=Draft(init="cut", lr=0.5, architecture=None))
    done = with_cut(config)
    assert done.draft.layers == (0, 5, 11) and done.draft.lr == 0.5
    assert done.draft.architecture.num_layers == 3
    decoder = models.config_from_hf(done.draft.architecture.hf_config())
    assert models.config_from_hf(theirs_of(whole, (0, 5, 11))) == decoder
    assert with_cut(done) == done  # and once more it changes nothing
    validate(done)


def theirs_of(whole, layers):
    """The config.json that a cut of weights has."""
    config = models.config_from_hf(whole.hf_config())
    model = models.CausalLM({f"layers_{i}": {} for i in range(config.num_layers)}, config)
    return cut(model, layers).config.hf_config()


def test_a_family_without_a_dataclass_is_cut_by_what_its_config_json_says_of_each_layer():
    hf = TINY_OF["gemma2"] | {"num_hidden_layers": 4, "layer_types": [SLIDING, SLIDING, FULL, SLIDING]}
    whole = Described.of(hf)
    config = with_cut(Experiment(target=Target(architecture=whole), draft=Draft(init="cut", layers=(0, 2))))
    assert config.draft.architecture.hf_config()["layer_types"] == [SLIDING, FULL]
    assert config.draft.architecture.num_layers == 2 and config.draft.architecture.vocab_size == whole.vocab_size
    validate(config)


def test_layers_that_say_nothing_of_their_number_say_nothing_once_they_are_cut():
    """So that a run of before goes on."""
    whole = Qwen2(num_hidden_layers=12)
    assert whole.of_layers((0, 5, 11)) == dataclasses.replace(whole, num_hidden_layers=3)


def test_any_other_draft_stays_as_it_is():
    config = Experiment(draft=Draft(init="some/where", architecture=Llama()))
    assert with_cut(config) is config


def test_the_layers_that_are_named_are_those_of_the_draft_whatever_the_config_file_says_of_its_sizes():
    argv = ["train", "--config", str(CHECKOUT / "configs" / "quickstart.py"), "--config.draft.init=cut"]
    draft = parse_experiment(argv, description="a test")[0].draft
    assert draft.layers == (0, 2) and draft.architecture.hidden_size == 128 and draft.architecture.num_layers == 2
    draft = parse_experiment([*argv, "--config.draft.layers=1"], description="a test")[0].draft
    assert draft.layers == (1,) and draft.architecture == dataclasses.replace(draft.architecture, num_hidden_layers=1)
    named = with_cut(Experiment(draft=Draft(init="cut", layers=[0, 1, 4])))  # a list will do
    assert named.draft.layers == (0, 1, 4) and named.draft.architecture == GPTNeoX(num_hidden_layers=3)
