"""Which layers a draft that is cut has by default, and what follows from them."""

import dataclasses

import pytest

from adaspec_jax.command_line import parse_experiment
from adaspec_jax.config import Draft, Experiment, GPTNeoX, Llama, Target, validate, with_cut
from adaspec_jax.config.cutting import evenly_spaced
from adaspec_jax.config.described import FAMILIES
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
    cut = with_cut(config)
    assert cut.draft.layers == (0, 5, 11) and cut.draft.lr == 0.5
    assert cut.draft.architecture == dataclasses.replace(whole, **{cls.DEPTH: 3})
    assert with_cut(cut) == cut  # and once more it changes nothing
    validate(cut)


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
